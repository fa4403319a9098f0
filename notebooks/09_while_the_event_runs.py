# %% [markdown]
# # 9 · While the event runs
#
# **Question.** Photos keep coming, batteries run low, people move, somebody wants to be forgotten. How does what each
# phone holds stay good until the last song?
#
# **Predict.** Guess three things: how many seconds pass between the last upload and a better model; which part of a
# model's bytes must travel again when it was only refined; and what becomes of a phone's next view when its battery is
# nearly empty.
#
# **Time.** 11 minutes on two CPU cores, most of them a training worker's.
#
# **Needs.** The bundled concert alone.
#
# What a service answers over HTTP is shown in [notebook 8](08_reach_the_crowd.ipynb).

# %%
import asyncio

import crowdnerf_lab as cn
from crowdnerf_lab.devices.measure import as_colour

# %% tags=["parameters"]
preset = "standard"

# %% [markdown]
# ## The event begins
#
# A service without a single model: it takes uploads, and a training worker, a process of its own, turns them into
# models (rows S22, S23, S61). It is one line here and one command on a server, `python -m crowdnerf_lab.network`.

# %%
bench = cn.open_workbench(preset)
service = cn.live_service_of(bench)
crowd = cn.Rehearsal(service.url, bench.received())
early, late = crowd.early_and_late(phones=bench.preset.live_phones)
print(f"{service.url}: {len(early)} phones are early, {len(late)} late")

# %% [markdown]
# ## People join, and send what they see
#
# Each phone joins under a pseudonym, with its owner's consent, and gets a token (S63). Its photos travel in pieces that
# can be resumed, each with time, lens and pose (S62). What arrives is screened, and faces are made unrecognisable
# before anything is kept. Then the worker trains a field, lets a student follow, bakes, measures, and publishes all of
# it at once as version 1.

# %%
await crowd.send(early)
first = await crowd.version_after(0)
states = await crowd.statuses()
kept = [state for state in states if state.state == "published"]
refused = [state for state in states if state.state == "refused"]
print(f"version {first} has learned from {len(kept)} of {len(states)} contributions; {len(refused)} were refused")

# %% [markdown]
# A refused contribution comes with its reason, for its sender alone:

# %%
cn.figures.table(
    {"contribution": state.id[:8], "state": state.state, "why": state.reason or ""}
    for state in (*kept[:2], *refused[:3])
)

# %% [markdown]
# ## One UE among them
#
# It asks for what fits it, verifies and loads it, and shows a view of its own (S67, S68, S69).

# %%
laptop = cn.Capability.from_profile(next(each for each in bench.profiles() if each.name == "laptop_cpu"))
phone = cn.UE(service.url, capability=laptop, target=cn.Target(max_ms=200), keep_fresh=False)
await phone.join()
model = await phone.model()
request = bench.request(0)
camera = (request.pose, request.focal, request.centre)
size = {"width": request.width, "height": request.height}
before = await phone.view(*camera, **size)
print(f"{phone.reason}\nfirst view: from the {before.path}, {before.milliseconds['total']:.0f} ms")

# %% [markdown]
# ## More photos arrive
#
# The field is not trained anew: it goes on from where it is, with the new photos drawn more often, for a few seconds
# (S30, S40). The student follows, quantized to the grid of the version before, so that most of its numbers stay where
# they are, and the phone fetches only the difference.

# %%
await crowd.send(late)
second = await crowd.version_after(first)
for _ in range(10):  # the service makes the difference once, when the first phone asks
    if (await phone.select()).artefacts[0].delta is not None:
        break
    await asyncio.sleep(0.5)
received = phone.bytes_received
await phone.refresh()
fetched = phone.bytes_received - received
whole = (await phone.select()).artefacts[0].card.bytes
after = await phone.view(*camera, **size)
print(f"version {second}: {fetched / 1e3:.0f} kB came over the air for a model of {whole / 1e3:.0f} kB")

# %% [markdown]
# Read the two numbers against each other. A *student* that was refined on its old grid sends a tenth of itself; a baked
# field moves all of its numbers, so that no difference is smaller than the file.
#
# Is it better? The same view, before and after, and the truth, which no phone took and the service never sees:

# %%
truth = bench.views().truths[0]
cn.figures.image_strip(
    {"truth": truth, f"version {first}": as_colour(before.picture), f"version {second}": as_colour(after.picture)},
    truth=truth,
)

# %% [markdown]
# ## Circumstances change
#
# A phone draws its views itself while it can. Then its battery runs low, another app takes the memory, the processor is
# busy; each time the next view comes from where that is best, and back again (S39). The reason is part of the answer.

# %%
changes = {
    "as it came": {},
    "energy: the battery is nearly empty": {"battery_wh": 0.0001},
    "energy: plugged in": {"battery_wh": 10.0},
    "memory: another app takes it": {"memory_mb": 0.01},
    "memory: given back": {"memory_mb": phone.capability.memory_mb},
    "processor: busy": {"busy": 0.9995},
    "processor: free": {"busy": 0.0},
    "place: the far stand, a poor link": {"link_mbit_s": 0.1, "rtt_ms": 300.0},
}

# %%
rows = []
for happens, change in changes.items():
    because = ", ".join(phone.circumstances(**change))
    await asyncio.sleep(1.1)
    view = await phone.view(*camera, **size)
    row = {"what happens": happens, "view from": view.path, "ms": view.milliseconds["total"], "because of": because}
    rows.append(row | {"why": view.reason})
cn.figures.table(rows)

# %% [markdown]
# The second of waiting is the phone's own: it leaves its model at once when it must, and takes it up again only after
# a while and with a margin, so that a battery that wavers does not make the picture waver.

# %% [markdown]
# ## A version that is worse
#
# A new field is judged on photos that no version has learned from, and is not published when it is worse. What gets
# through all the same is withdrawn: the version before it is the latest again, for those who ask and for the network's
# own views, and a phone that holds the bad one drops it (S40, S59). The photos behind it still wait to be learned
# from: the worker tries again.

# %%
catalogue = cn.Catalogue(service.home / "catalogue")
catalogue.withdraw("concert", second, reason="a rehearsal of what to do when a bad version got through")
await phone.refresh()
rolled_back = phone.version
print(f"the phone holds version {rolled_back}; it had {second}")

# %% [markdown]
# ## The evening in one figure
#
# What the service measured of each round so far, on photos that judge and are never learned from.

# %%
evening = cn.evening_of(service.home)
cn.figures.update_timeline(evening.versions, contributions=evening.contributions)

# %% [markdown]
# A dot is a version, with its dB on the judging photos; a cross one that was withdrawn.
# New photos bring new judges, so a later dot is judged by other photos, too: the worker compares two versions on the
# same ones before it publishes, and the figure cannot be read as a race.

# %% [markdown]
# ## Somebody wants to be forgotten
#
# One request. Their photos go, every version that learned from them is withdrawn, and a new one is trained without them
# (S20). What was recorded of the rounds that learned from them goes, too.

# %%
await crowd.ues[early[0]].forget_me()
last = await crowd.version_after(second)
versions = catalogue.versions("concert")
cn.figures.table(
    {"version": version.number, "note": version.note, "withdrawn": version.withdrawn or ""} for version in versions
)

# %% tags=["check"]
names = {
    contributor.ue for artefact in catalogue.artefacts("concert") for contributor in artefact.card.provenance.trained_on
}
assert before.path == "device"
assert {row["view from"] for row in rows} == {"device", "network"}
assert rolled_back != second
assert crowd.ues[early[0]].name not in names
assert fetched < 1.1 * whole
gain = cn.psnr(as_colour(after.picture), truth) - cn.psnr(as_colour(before.picture), truth)
await phone.close()
await crowd.close()
service.close()
print(f"versions {first} to {last}; {gain:+.1f} dB with the late photos; {fetched / whole:.0%} of its model's bytes")

# %% [markdown]
# **Your prediction.** Exercise 2 measures the seconds. Compare the two numbers of kB above: when a *student* is
# refined on the grid of the version before, a tenth of its bytes travels; a baked field moves all of its numbers, and
# then the difference is as large as the file, as in the committed run. And the phone with the empty battery goes on
# looking: from the network, where the network can.

# %% [markdown]
# ## What can go wrong
#
# - **The difference is as large as the file.** See above. A phone that holds another kind of model than it did, or one
#   that changed everywhere, fetches the whole file.
# - **Training and serving share two cores.** While the worker learns, a view may be refused with 429 and a time to ask
#   again; the phone then shows what it has, and its reason says so (look for *the network fails* in the table).
# - **Two versions, two juries.** Each version is judged on photos that it has not learned from, and these change as
#   photos arrive. Compare versions on the same photos, or not at all.
# - **Forgetting ends at the phone.** Versions are withdrawn and a new one is trained without the person's photos, but
#   a model that was downloaded and never asks again cannot be called back.
# - **Flapping.** Without margin and waiting, a battery at the edge of a limit makes the picture change its source
#   every second.
# - **Nobody sends anything bad on purpose, here.** [Notebook 2](02_calibrate_cameras.ipynb) has somebody who does.

# %% [markdown]
# ## Exercises
#
# Write your own answer in a new cell; the folded cell below each exercise holds a solution that checks itself. The
# service has ended, its records are still there.
#
# **Exercise 1.** What share of the evening's uploads came to nothing, and which check refused most of them?

# %% jupyter={"source_hidden": true} tags=["solution"]
reasons = [state.reason.split(":")[0] for state in refused]
most = max(set(reasons), key=reasons.count)
assert 0 < len(refused) < len(states) / 2
print(f"{len(refused) / len(states):.0%}; {reasons.count(most)} of {len(reasons)} by the check '{most}'")

# %% [markdown]
# **Exercise 2.** How many seconds passed between the last late upload and the version that learned from it?

# %% jupyter={"source_hidden": true} tags=["solution"]
learned = next(each for each in evening.versions if each.version == second)
waited = learned.seconds - max(at for at in evening.contributions if at < learned.seconds)
assert waited > 0
print(f"{waited:.0f} s")

# %% [markdown]
# **Exercise 3.** A full stadium refreshes when version 2 appears: 10,000 phones. How many megabytes are saved when each
# fetches what this phone fetched instead of the whole model (S47)? What does a negative answer say?

# %% jupyter={"source_hidden": true} tags=["solution"]
saved = 10_000 * (whole - fetched) / 1e6
assert abs(saved) < 10_000 * whole / 1e6
print(f"{saved:.0f} MB of {10_000 * whole / 1e6:.0f}")

# %% [markdown]
# ## Further reading
#
# - L. Bourtoule and others: [Machine Unlearning](https://arxiv.org/abs/1912.03817). IEEE S&P 2021. Training so that
#   forgetting is cheap.
# - Regulation (EU) 2016/679 (GDPR), [Article 17: right to erasure](https://eur-lex.europa.eu/eli/reg/2016/679/oj).
#   2016.
# - A. Tridgell, P. Mackerras: [The rsync algorithm](https://rsync.samba.org/tech_report/). Technical report
#   TR-CS-96-05, Australian National University, 1996. Sending only what changed.
# - J. Kirkpatrick and others: [Overcoming catastrophic forgetting in neural
#   networks](https://arxiv.org/abs/1612.00796). PNAS 114(13), 2017. What going on with training may lose.
#
# **On to** [10 · See and steer](10_see_and_steer.ipynb).
