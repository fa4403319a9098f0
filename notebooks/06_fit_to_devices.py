# %% [markdown]
# # 6 · Models that fit devices
#
# **Question.** One scene, six classes of devices: glasses with half a watt, phones, a browser tab, a laptop, a
# server. Which model should each download, and which of them should rather ask the network for pictures?
#
# **Predict.** The student's numbers shrink from 4 bytes to 1. Will a frame then take a quarter of the time, half of
# it, or as long as before? And how many dB will the rounding cost?
#
# **Time.** 3 minutes on two CPU cores. All milliseconds are measured on this machine, with the threads that the
# profile names: for any other chip they are a proxy.
#
# **Needs.** The field of [notebook 3](03_train_radiance_field.ipynb) and the student of [notebook
# 5](05_distil_light_field.ipynb); made if missing.

# %%
import shutil

import numpy as np

import crowdnerf_lab as cn
from crowdnerf_lab.catalogue.artefact import ArtefactError
from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.devices.fitting import reference_of
from crowdnerf_lab.devices.measure import pictures_of
from crowdnerf_lab.devices.quantize import op_types, quantized_per_channel
from crowdnerf_lab.network.ue import light_field_model, probe_psnr

# %% tags=["parameters"]
preset = "standard"

# %%
bench = cn.open_workbench(preset)
scene, views = bench.scene(), bench.views()
field, student = bench.field(), bench.student()
profiles = bench.profiles()

# %% [markdown]
# ## What devices can do
#
# A *device profile* says what a class of devices has: what it runs models with, in which arithmetic, how much memory
# and time a frame may take, and the link to it (rows S10, S26, S34, S35, S36). The numbers are orders of magnitude
# from public sources, named in each file of `data/devices`.

# %%
cn.figures.table(
    {
        "device": profile.title,
        "platform": profile.platform,
        "runs": ", ".join(profile.runtimes),
        "computes in": ", ".join(profile.precisions),
        "memory, MB": profile.memory_mb,
        "ms a frame": profile.frame_ms,
        "Mbit/s": profile.link_mbit_s,
    }
    for profile in profiles
)

# %% [markdown]
# Two runtimes divide the devices: ONNX Runtime exists almost everywhere and runs the light field; the baked field is
# marched by compiled kernels, which here means numba, so a machine with Python.
#
# ## One graph from pose to picture
#
# A device without Python gets the student as one ONNX graph: camera pose and focal length in, picture out. Rays,
# points, sines, network: all of it is inside (S35).

# %%
width, height = student.view_size
graph = export_onnx(student, bench.root / "student.onnx", width=width, height=height)
model = light_field_model(graph.read_bytes(), width=width, height=height, threads=1, name=graph)
by_graph, by_torch = pictures_of(model, views.cameras[:1])[0], bench.picture(student)
difference = np.abs(by_graph / 255 - by_torch.numpy()).max()
print(f"{graph.stat().st_size / 1e3:.0f} kB; most often: {op_types(graph).most_common(4)}")
print(f"largest difference from torch in a picture: {255 * difference:.1f} of 255")

# %% [markdown]
# Half a step of rounding to bytes is the most that should differ: the graph computes what torch computes.
#
# ## Fitting: every format a device can run, measured before it is offered
#
# For one device class, `fit_to` exports the student in each format that its arithmetic allows, bakes the field where
# it can be marched, measures bytes, milliseconds and quality of each *through the very code that a UE runs*, and
# publishes it as an *artefact*: a folder with the model, a card of all this, checksums, and two probe views (S25,
# S27, S66). Weights become integers by $w \approx s\,q$, $q \in \{-127, \dots, 127\}$ with one step $s$ for each
# output channel; activations too, where the chip multiplies integers (S43, S48).

# %%
reference = reference_of(field, scene, views=bench.preset.judged_views)
glasses = next(profile for profile in profiles if profile.device_class == "glasses")
fitted = cn.fit_to(
    glasses,
    field=field,
    students=[student],
    scene=scene,
    root=bench.root / "artefacts",
    reference=reference,
    frames=bench.preset.timed_frames,
    licence=bench.captures().licence,
)
fitted[0].card.model_dump(include={"name", "computes_in", "bytes", "latency", "quality", "provenance"})

# %% [markdown]
# That is one card, in short. Now the same for every class of devices:

# %%
artefacts = bench.fit_to_all_devices()
cards = [artefact.card for artefact in artefacts]
cn.figures.table(
    {
        "device": card.profile,
        "stored as": card.stored_as,
        "computes in": card.computes_in,
        "kB": card.bytes / 1e3,
        "ms, median": card.latency.median_ms,
        "ms, 95 %": card.latency.p95_ms,
        "dB to truth": card.quality.psnr,
        "dB to teacher": card.quality.psnr_teacher,
    }
    for card in cards
)

# %% [markdown]
# Read "stored as" against "computes in": a file with int8 weights is small, but where it computes in float32 it saves
# bytes on the way and not milliseconds on the device. The card says which of the two was bought (S46).
#
# ## Bytes against decibels

# %%
teacher = cn.quality(list(reference.teacher), list(reference.photos))
cn.figures.rate_distortion(
    cards, profiles, teacher=(field.table.numel() * field.table.element_size() / 1e3, teacher.psnr)
)

# %% [markdown]
# To the left is cheap to send, up is good to see; nested symbols are one model measured for several classes.
# Quantization moves a model to the left, and down by what rounding costs; the step from a student to the baked field
# is of another order in both (S44, S50, S51).
#
# ## Milliseconds against budgets

# %%
cn.figures.latency_bars(cards, profiles)

# %% [markdown]
# A bar that ends left of its tick keeps the device's frame rate *on this machine's processor*, a stand-in for the
# device's own. Whoever owns the device can measure again: the artefact holds all that is needed (S29).
#
# ## Who gets what
#
# A UE says what it can do and what it wants; the network answers with a model, or with "ask the network" (S37, S57,
# S67). Two wishes: to keep the device's frame time with a model that arrives within ten seconds; and the same with a
# picture at most 1 dB below the teacher's (S42).

# %%
answers = {}
for profile in profiles:
    own = [artefact for artefact in artefacts if artefact.card.profile == profile.name]
    fluent = cn.Target(max_ms=profile.frame_ms, max_download_s=10)
    faithful = cn.Target(max_ms=profile.frame_ms, max_download_s=10, min_psnr=teacher.psnr - 1)
    answers[profile.title] = [cn.select(own, cn.Capability.from_profile(profile), wish) for wish in (fluent, faithful)]
cn.figures.table(
    {"device": title}
    | {
        wish: each.artefact.card.stored_as if each.artefact else "ask the network"
        for wish, each in zip(("fluent", "fluent and faithful"), both, strict=True)
    }
    for title, both in answers.items()
)

# %% [markdown]
# A device for which nothing fits is not left out of the event: it asks for views ([notebook
# 7](07_compare_views.ipynb)). The reason names, for each model that was refused, the first limit that it breaks, and
# by how much:

# %%
for title, (_, faithful) in answers.items():
    print(f"{title}: {faithful.reason}\n")

# %% [markdown]
# ## Trust nothing that was downloaded
#
# The UE verifies checksums before it loads a model, and can measure the card's own claim on the probe views (S68).
# One flipped bit:

# %%
whole = artefacts[0]
tampered = bench.root / "tampered"
shutil.copytree(whole.folder, tampered, dirs_exist_ok=True)
content = bytearray((tampered / whole.card.model).read_bytes())
content[len(content) // 2] ^= 1
(tampered / whole.card.model).write_bytes(content)
try:
    cn.load_artefact(tampered)
except ArtefactError as error:
    print(str(error).replace(str(bench.root), "."))
shutil.rmtree(tampered)

# %% [markdown]
# The file is refused before it is loaded. A whole file may still lie about its quality; so each card names two views
# to measure it with, and what the UE should find:

# %%
claims = {}
for artefact in artefacts:
    probes = [probe.model_dump() for probe in artefact.card.probes]
    measured = probe_psnr(cn.load_artefact(artefact.folder), artefact.folder, probes)
    claims[artefact.card.name] = {"card, dB": artefact.card.probe_psnr, "measured again, dB": measured}
cn.figures.table({"model": name, **claim} for name, claim in claims.items())

# %% [markdown]
# The two columns agree, or the card is not to be believed on this device.

# %% tags=["check"]
assert all(abs(claim["card, dB"] - claim["measured again, dB"]) < 0.5 for claim in claims.values()), claims
assert {card.profile for card in cards} == {profile.name for profile in profiles}
served = [sum(answer.artefact is not None for answer in column) for column in zip(*answers.values(), strict=True)]
smallest = min(cards, key=lambda card: card.bytes)
print(f"{len(cards)} models for {len(profiles)} device classes, the smallest of {smallest.bytes / 1e3:.0f} kB;")
print(f"{served[0]} classes find a fluent one, {served[1]} a faithful one, the others ask the network")

# %% [markdown]
# The artefacts are kept in `artefacts/` of this preset's folder of `runs/`.
#
# ## Exercises
#
# Write your own answer in a new cell; the folded cell below each exercise holds a solution that checks itself.
#
# **Exercise 1.** Rounding to a step $s$ errs by at most $s/2$. Show it for the student's largest convolution with
# `quantized_per_channel`.

# %% jupyter={"source_hidden": true} tags=["solution"]
weights = max(student.parameters(), key=lambda tensor: tensor.numel()).detach().numpy()
integers, steps = quantized_per_channel(weights, 0)
error = np.abs(weights - integers * steps[:, None, None, None]).max(axis=(1, 2, 3))
assert (error <= steps / 2 * (1 + 1e-5)).all()
print(f"largest error {(error / steps).max():.3f} steps")

# %% [markdown]
# **Exercise 2.** A watch: ONNX Runtime, int8 only, 2 MB of memory, 1 Mbit/s. What does the network tell it? And what
# if it had 16 MB?

# %% jupyter={"source_hidden": true} tags=["solution"]
watch = cn.Capability(runtimes=("onnxruntime",), precisions=("int8",), memory_mb=2, link_mbit_s=1, rtt_ms=100)
small = cn.select(artefacts, watch, cn.Target())
large = cn.select(artefacts, watch.model_copy(update={"memory_mb": 16.0}), cn.Target())
print(large.reason)
assert small.artefact is None or 4 * small.artefact.card.bytes <= 2e6
assert large.artefact is not None

# %% [markdown]
# **Exercise 3.** Accuracy first (S42): ask for at most 1 dB below the teacher on the laptop, whatever it takes. Then
# for the same within 1 MB.

# %% jupyter={"source_hidden": true} tags=["solution"]
laptop = cn.Capability.from_profile(next(profile for profile in profiles if profile.name == "laptop_cpu"))
best = cn.select(artefacts, laptop, cn.Target(min_psnr=teacher.psnr - 1))
print(best.reason)
assert best.artefact is not None
assert best.artefact.card.quality.psnr >= teacher.psnr - 1
light = cn.select(artefacts, laptop, cn.Target(min_psnr=teacher.psnr - 1, max_bytes=1_000_000))
assert light.artefact is None or light.artefact.card.bytes <= 1_000_000

# %% [markdown]
# **On to** [7 · The same view, twice](07_compare_views.ipynb).
