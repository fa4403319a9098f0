# %% [markdown]
# # 7 · The same view, twice: from the device and from the network
#
# **Question.** A UE wants to see the stage from a new place. Is it better served by a model that it downloads once,
# or by pictures that the network sends each time?
#
# **Predict.** Guess three things for a laptop: which way looks better, which shows its first picture sooner, and
# after how many views the download has paid off in bytes.
#
# **Time.** 1 minute on two CPU cores, once the models exist.
#
# **Needs.** The field of [notebook 3](03_train_radiance_field.ipynb) and the artefacts of [notebook
# 6](06_fit_to_devices.ipynb); made if missing.

# %%
import time
from dataclasses import replace

import crowdnerf_lab as cn
from crowdnerf_lab.devices.measure import as_colour, pictures_of
from crowdnerf_lab.network.links.account_measurement import measured_model, measured_view
from crowdnerf_lab.network.links.latency_account import device_path, network_path, views_by_bytes
from crowdnerf_lab.network.links.link import LINKS, shaped_tcp
from crowdnerf_lab.network.ues.rehearsed_crowd import until_it_renders

# %% tags=["parameters"]
preset = "standard"

# %%
bench = cn.open_workbench(preset)
field, views = bench.field(), bench.views()
artefacts = bench.artefacts()

# %% [markdown]
# ## Network inference
#
# The UE sends a pose, a size and a quality; the network renders, encodes and answers with a picture (rows S8, S58,
# S70, S71). Nothing but a decoder is needed on the device.

# %%
answers = [cn.render_and_encode(field, bench.request(index)) for index in range(len(views))]
started = time.perf_counter()
by_network = [as_colour(cn.decode_view(answer)) for answer in answers]
decode_ms = 1e3 * (time.perf_counter() - started) / len(answers)
first = answers[0]
work = f"{first.render_ms:.0f} ms to render, {first.encode_ms:.0f} to encode, {decode_ms:.1f} to decode"
print(f"{first.media_type}, {len(first.content) / 1e3:.1f} kB; {work}")

# %% [markdown]
# ## Device inference
#
# The same view on the device, from what [notebook 6](06_fit_to_devices.ipynb) published, the best within 4 MB: the
# laptop marches a baked field, the phone runs a student in int8. Both through the minimal UE, which has never heard of
# torch (S28, S69).

# %%
capable = {profile.name: cn.Capability.from_profile(profile) for profile in bench.profiles()}
in_int8 = capable["mid_phone"].model_copy(update={"precisions": ("int8",)})
laptop, phone = (
    cn.select(artefacts, capability, cn.Target(max_bytes=4_000_000)).artefact
    for capability in (capable["laptop_cpu"], in_int8)
)
by_laptop, by_phone = (
    [as_colour(picture) for picture in pictures_of(cn.load_artefact(each.folder), views.cameras)]
    for each in (laptop, phone)
)

# %% [markdown]
# ## Side by side

# %%
cn.figures.image_strip(
    {
        "truth": views.truths[0],
        "network: field": by_network[0],
        "laptop: baked field": by_laptop[0],
        "phone: student, int8": by_phone[0],
    },
    truth=views.truths[0],
    notes={
        "network: field": f"{len(first.content) / 1e3:.0f} kB a view",
        "laptop: baked field": f"{laptop.card.bytes / 1e6:.1f} MB once",
        "phone: student, int8": f"{phone.card.bytes / 1e6:.1f} MB once",
    },
)

# %% [markdown]
# One picture is an anecdote. Over all held-out views, against the true pictures:

# %%
paths = {"network: field": by_network, "laptop: baked field": by_laptop, "phone: student, int8": by_phone}
scores = {name: cn.quality(pictures, list(views.truths)) for name, pictures in paths.items()}
cn.figures.table(
    {"path": name, "PSNR, dB": score.psnr, "SSIM": score.ssim, "ꟻLIP": score.flip} for name, score in scores.items()
)

# %% [markdown]
# PSNR and SSIM are better when higher, ꟻLIP when lower. What separates the first row from the second is the codec's
# loss on one side and the quantization's on the other: both paths show *the same field*. The third row shows another
# model.
#
# ## Where they differ
#
# Two fields can agree on average and differ where it matters. The difference between the network's and the laptop's
# picture:

# %%
cn.figures.triptych(by_network[0], by_laptop[0], name="laptop: baked field")

# %% [markdown]
# Here the network's picture takes the place of the truth, so the third panel holds only what codec and quantization
# do.
#
# ## The account: bytes
#
# Downloading pays once, $B_{model}$; asking pays every time, $n \cdot B_{view}$. They cross at $n^* = B_{model} /
# B_{view}$ (rows S47, S52).

# %%
device, phone_alone = device_path(laptop.card), device_path(phone.card)
network = network_path(answers, decode_ms=decode_ms)
ways = {"network: field": network, "laptop: baked field": device, "phone: student, int8": phone_alone}
cn.figures.crossover(ways)

# %% [markdown]
# The network's line starts at one picture and rises; a model's is level at its size. Left of the crossing the network
# is cheaper, right of it the download. A UE that looks once should ask; one that looks around should download.

# %%
crossing = views_by_bytes(device, network)
print(f"The laptop's model has paid off after {crossing:.0f} views: {crossing / 10:.0f} s at 10 views a second.")

# %% [markdown]
# ## The account: from request to pixels
#
# Where a second goes over four links, from the first request to the first picture: the request travels up, waits, is
# rendered or not, comes down, is decoded or loaded, and drawn (S41, S49). The line is the use case's second.

# %%
named = [replace(path, name=name) for name, path in ways.items()]
accounts = [path.first_pixels(link) for link in LINKS.values() for path in named]
cn.figures.latency_account(accounts)

# %% [markdown]
# These are predictions, from the link, the cards and the service's own milliseconds. Over good links the render is most
# of the network's bar; over the crowded cell the bytes are all that counts, and a small student is there before a large
# field has half arrived.
#
# Are they true? The real service, behind a proxy that makes loopback as slow as a link (S52), and UEs that have never
# been there before:

# %%
service = cn.service_of(bench)
await until_it_renders(service.url, bench.request(0))
link = LINKS["5g_poor"]
async with shaped_tcp(service.url, link) as url:
    measured = [
        await measured_view(url, link, bench.request(1)),
        await measured_model(url, link, bench.request(1), capability=in_int8),
    ]
service.close()
predicted = [replace(path, name=path.path).first_pixels(link) for path in (network, phone_alone)]
cn.figures.latency_account([*measured, *predicted])

# %% [markdown]
# Measured bars are dark, predicted ones pale. The service renders several times sooner than this notebook did: it
# marches the best baked field with both cores, not the field as it was trained. What the prediction does not know is
# that service, proxy and UE share these cores.
#
# ## How big may a model be?
#
# The table that a service needs: what fits through each link in half a second, in one, in two, with the phone's loading
# and drawing counted in (S41, S44).

# %%
sizes = {"laptop: baked field": laptop.card.bytes, "phone: student, int8": phone.card.bytes}
cn.figures.largest_models(LINKS.values(), models=sizes, device_ms=phone_alone.load_ms + phone_alone.frame_ms)

# %% [markdown]
# Left of a link's dots a model comes in time; right of them the UE should be sent a view first, or a file of which the
# first layer shows something.
#
# After the first picture the two ways part: the device's next view needs no link at all, the network's pays for it
# every time. So waiting has a crossing of its own:

# %%
cn.figures.crossover(ways, link=LINKS["5g_poor"])

# %% [markdown]
# Which of them is sooner in the long run is a matter of the model: one pass of a small network, or a march along every
# ray on one thread. The network's milliseconds are those of the two cores that it has here.

# %% tags=["check"]
loss = scores["network: field"].psnr - scores["laptop: baked field"].psnr
untrained = cn.psnr(bench.picture(cn.SHGrid(bench.scene().bounds)), views.truths[0])
assert abs(loss) < 1.5, f"both paths show the same field but differ by {loss:.1f} dB"
assert all(cn.psnr(pictures[0], views.truths[0]) > untrained + 1 for pictures in paths.values())
cn.figures.side_by_side([views.truths[0], by_network[0], by_laptop[0]]).save(bench.root / "views.png")
reached = ", ".join(f"{name} {score.psnr:.1f} dB" for name, score in scores.items())
print(f"{reached}; the download pays off after {crossing:.0f} views")

# %% [markdown]
# **Your prediction.** The network's view and the laptop's look the same: it is the same field. The network shows its
# first picture sooner than the laptop's model over every link; a small student is sooner still, but for the crowded
# cell and the poor link. The laptop's download has paid off in bytes after half a minute of looking around.
#
# Truth, network and device are kept side by side as `views.png` in this preset's folder of `runs/`.

# %% [markdown]
# ## What can go wrong
#
# - **A loopback is no radio.** The proxy makes bytes slow and late. It does not fade, share the cell with others or
#   fall back to a slower code.
# - **The first view of a service takes seconds.** It loads the model when it is first asked, and says 429 and when to
#   ask again. Later views that look alike come from a cache: time views that differ.
# - **Unequal comparisons.** The same size, the same views, the same quality of the codec; otherwise the picture that
#   is smaller on the air is only smaller.
# - **Bytes are not all.** A march on the device costs its battery, a render in the network costs somebody's server.
#   The crossing in joules lies elsewhere ([notebook 6](06_fit_to_devices.ipynb) has them on the cards).
# - **Decibels favour blur.** Two pictures of 20.5 dB can look very different; hence SSIM and ꟻLIP beside it.

# %% [markdown]
# ## Exercises
#
# Write your own answer in a new cell; the folded cell below each exercise holds a solution that checks itself.
#
# **Exercise 1.** The network may send worse pictures sooner. Encode the first view at qualities 10 to 90, and put
# kilobytes against dB *to the truth*. From where on do bytes buy nothing, and why?

# %% jupyter={"source_hidden": true} tags=["solution"]
sent = {quality: cn.render_and_encode(field, bench.request(0), quality=quality) for quality in (10, 30, 50, 70, 90)}
sizes = [len(view.content) for view in sent.values()]
assert sizes == sorted(sizes)
cn.figures.table(
    {
        "quality": quality,
        "kB": len(view.content) / 1e3,
        "dB": cn.psnr(as_colour(cn.decode_view(view)), views.truths[0]),
    }
    for quality, view in sent.items()
)

# %% [markdown]
# **Exercise 2.** A thousand people look at the stage from the same 20 places. How many bytes does the network send if
# it renders each of these views once and multicasts it, and how many if everybody downloads the laptop's model (S54,
# S72)?

# %% jupyter={"source_hidden": true} tags=["solution"]
multicast, unicast = network.total_bytes(20), 1000 * network.total_bytes(20)
models = 1000 * device.total_bytes(20)
print(f"views: {unicast / 1e6:.0f} MB one by one, {multicast / 1e6:.2f} MB multicast; models: {models / 1e6:.0f} MB")
assert unicast == 1000 * multicast
assert models > unicast or crossing < 20

# %% [markdown]
# **Exercise 3.** Can the device answer when the network is gone? Render a view from 2 m above the first one with the
# laptop's model alone, and check that it is a picture of something: its colours vary.

# %% jupyter={"source_hidden": true} tags=["solution"]
request = bench.request(0)
pose = request.camera_to_world.numpy().copy()
pose[2, 3] += 2
offline = cn.load_artefact(laptop.folder).render(
    pose, request.focal, request.centre, width=request.width, height=request.height
)
assert offline.std() > 5
cn.figures.image_strip({"the view": by_laptop[0], "2 m higher": offline}, columns=3)

# %% [markdown]
# ## Further reading
#
# - S. Shi, C.-H. Hsu: [A Survey of Interactive Remote Rendering Systems](https://doi.org/10.1145/2719921). ACM
#   Computing Surveys 47(4), 2015.
# - Y. Kang and others: [Neurosurgeon: Collaborative Intelligence Between the Cloud and Mobile
#   Edge](https://doi.org/10.1145/3037697.3037698). ASPLOS 2017. Where to cut between device and network.
# - 3GPP TR 26.928: [Extended Reality (XR) in 5G](https://www.3gpp.org/DynaReport/26928.htm). Split rendering and its
#   latencies.
# - P. Andersson and others: [FLIP: A Difference Evaluator for Alternating Images](https://doi.org/10.1145/3406183).
#   HPG 2020.
#
# Next: [how the crowd gets it](08_reach_the_crowd.ipynb).
