# %% [markdown]
# # 8 · Reach the crowd
#
# **Question.** A song begins, and ten thousand phones of many kinds want to see the stage at the same moment. Who gets
# which model, over which way, and how long until the last one has it?
#
# **Predict.** Guess three things: how much longer 1 MB takes to each of ten thousand phones, one by one, than to all of
# them at once; how many packets a broadcast sends for every 100 of the file when 10 % get lost; and how much the
# network itself has to send when phones give each other what they have.
#
# **Time.** 1 minute on two CPU cores, once the models exist.
#
# **Needs.** The artefacts of [notebook 6](06_fit_to_devices.ipynb); made if missing.

# %%
import httpx

import crowdnerf_lab as cn
from crowdnerf_lab.network.delivery.broadcast_settings import BroadcastSettings
from crowdnerf_lab.network.delivery.broadcaster import sessions_of
from crowdnerf_lab.network.delivery.losses import bursts, independent
from crowdnerf_lab.network.delivery.simulation import WAYS, simulate_broadcast, simulate_flash_crowd
from crowdnerf_lab.network.ues.rehearsed_crowd import THIN, listen, rush, share, until_it_renders

# %% tags=["parameters"]
preset = "standard"

# %% [markdown]
# ## A service
#
# A real one, on this machine: HTTP for each UE, and UDP multicast for all of them. It holds the event's catalogue, and
# ends with this notebook.

# %%
bench = cn.open_workbench(preset)
on_air = BroadcastSettings(rate_mbit_s=20, most_bytes=400_000)
service = cn.service_of(bench, home="crowd_service", broadcast=on_air)
await until_it_renders(service.url, bench.request(0))
print(httpx.get(f"{service.url}/health").json()["status"])

# %% [markdown]
# ## To each what fits it
#
# Every UE declares what it can do, and the service answers with a model or with an offer to render for it (rows S26,
# S32, S35, S36, S67). Nobody is told to download what would not run.

# %%
rows = []
for profile in bench.profiles():
    async with cn.UE(service.url, capability=cn.Capability.from_profile(profile)) as ue:
        await ue.join()
        answer = await ue.select()
        offer = answer.artefacts[0] if answer.artefacts else None
        size = offer.card.bytes / 1e3 if offer else None
        rows.append(
            {"UE": profile.title, "inference": answer.inference, "model": offer.name if offer else "", "kB": size}
        )
cn.figures.table(rows)

# %% [markdown]
# ## A rush
#
# Forty of them come within a second. Nine of ten want a model, which they download, verify and load; one of ten a view
# that the network renders (S33, S54). The clock runs from the moment at which each *wanted* to be served.

# %%
capabilities = [cn.Capability.from_profile(profile) for profile in bench.profiles()]
crowd = await rush(service, ues=40, capabilities=capabilities, view=bench.request(0))
cn.figures.table(
    {
        "wanted": kind,
        "UEs": sum(served.kind == kind for served in crowd.served),
        "median, s": crowd.quantile_s(0.5, kind=kind),
        "95 %, s": crowd.quantile_s(0.95, kind=kind),
    }
    for kind in ("model", "view")
)

# %% [markdown]
# The forty UEs are played by this notebook's own process, which loads every model that they get: most of the time is
# theirs. `python -m benchmarks.network --parts crowd` drives more of them, and more cheaply.
#
# ## One to all
#
# The service also sends its models round and round over UDP multicast (S55). A phone joins at any moment and listens;
# RaptorQ (RFC 6330) makes ever new repair packets of the file's $K$, and almost any $K$ of them give the file back.
# What the radio loses for some, it loses independently, or in bursts.

# %%
session = max(sessions_of(service.home, "concert"), key=lambda each: each.bytes)
losses = {"none": independent(0.0), "10 %": independent(0.1), "10 % in bursts of 8": bursts(0.1, 8)}
heard = {name: await listen(service, session, receivers=12, loss=loss) for name, loss in losses.items()}
cn.figures.table(
    {
        "lost": name,
        "K": session.source_symbols,
        "most that a receiver needed": max(each.symbols_received for each in received),
        "slowest, s": max(each.seconds for each in received),
        "repaired, bytes": sum(each.repaired_bytes for each in received),
    }
    for name, received in heard.items()
)

# %% [markdown]
# Nobody needs many more than $K$, and which ones were lost does not matter. The price of losses is time: at 10 % a
# receiver waits until $K / 0.9$ packets have been sent.
#
# ## From each other
#
# Phones that have a piece give it on; each piece is checked against the service's list, so that a liar is found with
# its first piece (S53).

# %%
largest = max((artefact.card for artefact in bench.artefacts()), key=lambda card: card.bytes)
shared = await share(service, next(file.sha256 for file in largest.files if file.path == largest.model), ues=8)
given = {kind: sum(each.bytes_from.get(kind, 0) for each in shared) for kind in ("cloud", "peer")}
print(
    f"the network sent {given['cloud'] / largest.bytes:.1f} copies for {len(shared)} phones; "
    "they gave each other the rest"
)

# %% [markdown]
# ## Ten thousand
#
# More than a machine can play with real sockets, so it is simulated; where both can go, a test holds the simulation
# against the sockets. Ten thousand phones want 1 MB within a second or so, over a shared radio and an origin of
# 1 Gbit/s.

# %%
deliveries = {way: simulate_flash_crowd(10_000, object_bytes=1_000_000, way=way) for way in WAYS}
cn.figures.completion(deliveries)

# %% [markdown]
# One by one, everybody waits for everybody: 10,000 MB have to pass one link. Caches at the cells move the queue to the
# radio. The broadcast sends the file once, and all have it at nearly the same time; peers take load off the origin and
# need a while to spread (S33, S54, S55).
#
# How long must the carousel go on? Until the last receiver has its $K$ packets:

# %%
broadcast = simulate_broadcast(10_000, object_bytes=1_000_000, loss=independent(0.1))
over_k = {share_of: broadcast.symbols_for(share_of) / broadcast.source_symbols for share_of in (0.5, 0.99, 0.999, 1.0)}
cn.figures.table(
    {"complete": f"{part:.1%}", "sent for each packet of the file": factor} for part, factor in over_k.items()
)

# %% [markdown]
# Half of the crowd is done after $1/0.9 = 1.11$ times the file. The other half waits for its bad luck to even out, and
# the last of ten thousand not much longer: with many packets luck evens out for all.

# %% tags=["check"]
complete = all(each.symbols_received >= session.source_symbols or each.repaired_bytes for each in heard["10 %"])
assert complete
assert max(each.symbols_received for each in heard["none"]) <= session.source_symbols + 2
assert not crowd.refused, crowd.errors
assert broadcast.complete_after(1.2 * broadcast.source_symbols) > 0.999
assert given["cloud"] < len(shared) * largest.bytes
sooner = deliveries["unicast"].waited.max() / deliveries["broadcast"].waited.max()
print(f"{len(crowd.served)} UEs served; 1 MB to 10,000: by broadcast {sooner:.0f} times as soon as one by one")

# %% [markdown]
# **Your prediction.** One by one, 10,000 MB need 80 s on a link of 1 Gbit/s; once for all, at the broadcast's rate, 1
# MB needs half a second. A broadcast sends some 116 packets for every 100 of the file until the last is done, and not
# 111, for the last of ten thousand has had bad luck. Phones that give each other what they have leave the network a
# copy or two to send.

# %% [markdown]
# ## What can go wrong
#
# - **Nothing arrives by multicast.** Containers, guest Wi-Fi and most routers drop it. Here receiver and sender share
#   one machine; elsewhere, what did not come by multicast is fetched over HTTP.
# - **Everybody repairs at once.** If all who lost packets ask for them at the same time, the repair is the next flash
#   crowd. That is what the code is for: keep sending, and ask only for what is still missing late.
# - **The driver is the bottleneck.** Forty UEs in one process measure that process. The times of the rush are mostly
#   the time in which this notebook loads models.
# - **A simulation is its assumptions.** One radio, losses that are independent or in bursts, no one walking away. A
#   test holds it against sockets only where both can go.
# - **Peers cost.** Giving a piece on spends somebody's battery and tells them who is there. They have to agree.

# %% [markdown]
# ## Exercises
#
# Write your own answer in a new cell; the folded cell below each exercise holds a solution that checks itself.
#
# **Exercise 1.** Without a code, a receiver needs each packet itself, and waits for the round in which it comes through
# to it. With 10 % loss and $K = 977$ packets, how many rounds until all of 10,000 receivers are done, on average?
# Compare with RaptorQ's 1.15.

# %% jupyter={"source_hidden": true} tags=["solution"]
packets, receivers, lost = 977, 10_000, 0.1
rounds = 1 + sum(1 - (1 - lost**after) ** (packets * receivers) for after in range(1, 60))
assert rounds > 5
print(f"{rounds:.1f} rounds without a code")

# %% [markdown]
# **Exercise 2.** The crowd comes over twenty seconds instead of one. A broadcast takes as long as before; which gains
# more, one by one or through caches at the cells, and why?

# %% jupyter={"source_hidden": true} tags=["solution"]
ways = ("unicast", "edges")
slower = {way: simulate_flash_crowd(10_000, object_bytes=1_000_000, way=way, arrival_s=20.0) for way in ways}
gains = {way: float(deliveries[way].waited.mean() / slower[way].waited.mean()) for way in ways}
assert gains["edges"] > gains["unicast"] > 1
cn.figures.table({"way": way, "times as soon": gain} for way, gain in gains.items())

# %% [markdown]
# **Exercise 3.** Views can be broadcast, too: everybody looks at the singer from the same places. How many bytes is a
# view, and from how many receivers of a view on does one multicast send less than answering each (S72)?

# %% jupyter={"source_hidden": true} tags=["solution"]
async with cn.UE(service.url, capability=THIN) as thin:
    await thin.join()
    request = bench.request(0)
    seen = await thin.view(request.pose, request.focal, request.centre, width=request.width, height=request.height)
multicast = seen.bytes / 0.9  # what 10 % loss adds
assert seen.path == "network"
assert multicast < 2 * seen.bytes
print(f"a view is {seen.bytes / 1e3:.1f} kB, multicast {multicast / 1e3:.1f} kB: from the second receiver on")

# %%
service.close()

# %% [markdown]
# ## Further reading
#
# - M. Luby, A. Shokrollahi, M. Watson, T. Stockhammer, L. Minder: [RaptorQ Forward Error Correction Scheme for Object
#   Delivery](https://www.rfc-editor.org/rfc/rfc6330). RFC 6330, 2011.
# - J. W. Byers, M. Luby, M. Mitzenmacher, A. Rege: [A digital fountain approach to reliable distribution of bulk
#   data](https://doi.org/10.1145/285237.285258). SIGCOMM 1998. The idea, in its first form.
# - T. Paila, R. Walsh, M. Luby, V. Roca, R. Lehtonen: [FLUTE: File Delivery over Unidirectional
#   Transport](https://www.rfc-editor.org/rfc/rfc6726). RFC 6726, 2012.
# - E. N. Gilbert: [Capacity of a burst-noise channel](https://doi.org/10.1002/j.1538-7305.1960.tb03959.x). Bell System
#   Technical Journal 39(5), 1960. Losses in bursts.
# - 3GPP TS 26.346: [Multimedia Broadcast/Multicast Service (MBMS); Protocols and
#   codecs](https://www.3gpp.org/DynaReport/26346.htm).
#
# Next: [what happens while the event runs](09_while_the_event_runs.ipynb).
