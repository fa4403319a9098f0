# %% [markdown]
# # 6 · Models that fit devices
#
# **Question.** One scene, eight classes of devices: a watch, glasses with half a watt, phones, a browser tab, a laptop,
# a server. Which model should each download, and which of them should rather ask the network for pictures?
#
# **Predict.** The student's numbers shrink from 4 bytes to 1. Will a frame then take a quarter of the time, half of
# it, or as long as before? And how many dB will the rounding cost? Coded for the air, how many bits will be left of
# each number?
#
# **Time.** 6 minutes on two CPU cores. Milliseconds are measured on this machine, with one thread: for any other chip
# they are a proxy, and what is computed from a device's data sheet says so.
#
# **Needs.** The field of [notebook 3](03_train_radiance_field.ipynb) and the students of [notebook
# 5](05_distil_light_field.ipynb); made if missing.

# %%
import shutil

import numpy as np

import crowdnerf_lab as cn
from crowdnerf_lab.catalogue.artefact import ArtefactError
from crowdnerf_lab.devices.export import export_onnx
from crowdnerf_lab.devices.formats.sensitivity import sensitivity_of
from crowdnerf_lab.devices.measure import as_colour, pictures_of
from crowdnerf_lab.devices.quantize import op_types
from crowdnerf_lab.devices.reference import calibration_feeds
from crowdnerf_lab.network.ue import light_field_model

# %% tags=["parameters"]
preset = "standard"

# %%
bench = cn.open_workbench(preset)
scene, views = bench.scene(), bench.views()
field, students = bench.field(), bench.students()
profiles = bench.profiles()
lesson = next(iter(students))
student = students[lesson]

# %% [markdown]
# ## What devices can do
#
# A *device profile* says what a class of devices has: its operating systems, what it runs models with, in which
# arithmetic, how much memory, time and energy a frame may take, and the link to it (rows S10, S26, S34, S35, S36). The
# numbers are orders of magnitude from public sources, named in each file of `data/devices`.

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
# Two runtimes divide the devices: ONNX Runtime exists almost everywhere and runs the light fields; a baked field is
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
print(f"{lesson}: {graph.stat().st_size / 1e3:.0f} kB; most often: {op_types(graph).most_common(4)}")
print(f"largest difference from torch in a picture: {255 * difference:.1f} of 255")

# %% [markdown]
# Half a step of rounding to bytes is the most that should differ: the graph computes what torch computes.
#
# ## The ladder: every form of the scene, measured before it is offered
#
# A *ladder* spans what can be sent: families and sizes of models, formats of their weights, resolutions, codings of the
# file. A rung is built when it is asked for: converted, coded, and measured *through the very code that a UE runs*;
# then it is published as an *artefact*, a folder with the model, a card of all this, checksums, and two probe views
# (S25, S27, S37, S66).

# %%
ladder = bench.ladder()
artefacts = ladder.build_all(ladder.shortlist())
cards = [artefact.card for artefact in artefacts]
print(f"{len(ladder.candidates())} rungs could be built, {len(cards)} were")
cards[0].model_dump(include={"name", "architecture", "computes_in", "bytes", "latency", "quality", "energy"})

# %% [markdown]
# That is one card, in part. All of them, in the picture that this notebook is about: bytes over the air to the right,
# quality upwards, and the time of a frame as colour (S44, S50).

# %%
teacher = cn.quality(list(ladder.reference.teacher), list(ladder.reference.photos))
cn.figures.pareto(cards, teacher_psnr=teacher.psnr)

# %% [markdown]
# To the left is cheap to send, up is good to see. Nothing below and to the right of another rung is worth sending,
# unless it is faster: the *Pareto front* is what remains.
#
# ## What a format costs
#
# Weights become integers by $w \approx s\,q$ with one step $s$ for each output channel; activations too, where the
# chip multiplies integers (S43, S48). `onnx_int8_mixed` leaves in float what hurts most; weight-only formats are
# small files that compute in float32.

# %%
of_student = [card for card in cards if card.family == lesson.split()[0]]
plain = next(card for card in of_student if card.stored_as == "onnx_float32" and card.coding == "none")
cn.figures.table(
    {
        "stored as": card.stored_as,
        "coding": card.coding,
        "computes in": card.computes_in,
        "kB": card.bytes / 1e3,
        "% of float32": 100 * card.bytes / plain.bytes,
        "ms, median": card.latency.median_ms,
        "times as fast": plain.latency.median_ms / card.latency.median_ms,
        "dB lost": plain.quality.psnr - card.quality.psnr,
    }
    for card in of_student
)

# %% [markdown]
# Read "computes in" against "times as fast": a format buys bytes, or milliseconds, or both, and the card says which
# (S46). Which layers does the rounding hurt? Each layer alone in int8, the rest in float32:

# %%
feeds = calibration_feeds(scene, width=width, height=height)
layers = sensitivity_of(graph, feeds)
cn.figures.table(
    {"layer": each.layer, "PSNR to float32, dB": each.psnr} for each in sorted(layers, key=lambda each: each.psnr)[:5]
)

# %% [markdown]
# ## For the air: entropy coding, and files that show something early
#
# Small integers are not equally likely, so a range coder spends fewer bits on the frequent ones (S48). A *progressive*
# file brings coarse weights first and refinements after: whatever has arrived beyond the first layer draws (S49).

# %%
layered = [card for card in cards if card.layers and card.stored_as in ("onnx_int8_qdq", "baked")]
progressive = list({card.bytes: card for card in layered if card.width == width}.values())
cn.figures.progressive_curves(progressive)

# %% [markdown]
# The same as pictures: the largest of these files while it arrives.

# %%
growing = max((each for each in artefacts if each.card in progressive), key=lambda each: each.card.bytes)
ends = [layer.bytes for layer in growing.card.layers]
arriving, arrived = bench.root / "arriving", {}
for end in (ends[0], ends[len(ends) // 2], ends[-1]):
    shutil.copytree(growing.folder, arriving, dirs_exist_ok=True)
    (arriving / growing.card.model).write_bytes(growing.model.read_bytes()[:end])
    (picture,) = pictures_of(cn.load_artefact(arriving, allow_partial=True), views.cameras[:1])
    arrived[f"{end / 1e3:.0f} kB"] = as_colour(picture)
shutil.rmtree(arriving)
cn.figures.image_strip(arrived, truth=views.truths[0], columns=3)

# %% [markdown]
# ## By target
#
# A device comes with a limit of milliseconds, perhaps of bytes, perhaps a wish for quality. `fit_to` predicts every
# rung from those that were built, builds what promises most, and returns the best that fits, or the limit that stands
# in the way and by how much (S42, S44, S45). The device's milliseconds are a roofline *proxy* from its data sheet.

# %%
fitted = {profile.title: cn.fit_to(profile, ladder=artefacts) for profile in profiles}
cn.figures.table(
    {
        "device": title,
        "model": each.artefact.card.name.partition(".")[2] if each.artefact else "ask the network",
        "dB": each.artefact.card.quality.psnr if each.artefact else None,
        "kB": each.artefact.card.bytes / 1e3 if each.artefact else None,
    }
    for title, each in fitted.items()
)

# %% [markdown]
# Every answer says why, and what of it was measured where:

# %%
print(fitted["AR glasses"].reason)

# %% [markdown]
# A device for which nothing fits is not left out of the event: it asks for views ([notebook
# 7](07_compare_views.ipynb)). Milliseconds as measured here, against the budgets of the devices:

# %%
cn.figures.latency_bars([each.artefact.card for each in fitted.values() if each.artefact], profiles)

# %% [markdown]
# ## One model or a set
#
# A UE says what it can do and what it wants; the network answers with a model, a set of them, or "ask the network"
# (S37, S38, S57, S67). A laptop on a slow link: something to see within a second, and then the best.

# %%
laptop = next(profile for profile in profiles if profile.name == "laptop_cpu")
here = cn.Capability.from_profile(laptop)
slow = here.model_copy(update={"link_mbit_s": 2.0})
together = cn.select_set(artefacts, slow, cn.Target())
print(together.reason)

# %% [markdown]
# ## When circumstances change
#
# The UE says again what it can do, and learns whether it should run something else, and because of what (S39).
# *Place*: it moves into a crowded cell, whose link brings one hundredth, and will wait two seconds for a model.

# %%
wish = cn.Target(max_download_s=2.0)
before = cn.select(artefacts, here, wish)
crowded = cn.reselect(before, artefacts, capability=here.model_copy(update={"link_mbit_s": here.link_mbit_s / 100}))
print(f"It ran {before.artefact.card.name}; now {crowded.selection.reason}. The cause: {', '.join(crowded.because)}.")

# %% [markdown]
# *Energy*: one watt hour is left in its battery, and must last two hours.

# %%
tired = cn.reselect(before, artefacts, capability=here.model_copy(update={"battery_wh": 1.0}))
print(f"It ran {before.artefact.card.name}; now {tired.selection.reason}. The cause: {', '.join(tired.because)}.")

# %% [markdown]
# *Processor*: another program takes nine tenths of it, and a frame may take 200 ms.

# %%
prompt = cn.select(artefacts, here, cn.Target(max_ms=200))
busy = cn.reselect(prompt, artefacts, capability=here.model_copy(update={"busy": 0.9}))
print(f"It ran {prompt.artefact.card.name}; now {busy.selection.reason}. The cause: {', '.join(busy.because)}.")

# %% [markdown]
# *Memory*: the system asks for most of it back.

# %%
narrow = cn.reselect(before, artefacts, capability=here.model_copy(update={"memory_mb": 40.0}))
print(f"It ran {before.artefact.card.name}; now {narrow.selection.reason}. The cause: {', '.join(narrow.because)}.")

# %% [markdown]
# ## Trust nothing that was downloaded
#
# The UE verifies checksums before it loads a model (S68). One flipped bit:

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
# to measure it with, and `verify` does, with the milliseconds:

# %%
chosen = list({each.artefact.card.name: each.artefact for each in fitted.values() if each.artefact}.values())
verified = [cn.verify(artefact, frames=bench.preset.timed_frames) for artefact in chosen]
cn.figures.table(
    {
        "model": each.name.partition(".")[2],
        "card, dB": each.psnr_card,
        "here, dB": each.psnr_remeasured,
        "card, ms": each.ms_card,
        "here, ms": each.ms_remeasured,
        "believed": each.agrees,
    }
    for each in verified
)

# %% [markdown]
# ## A version of the event
#
# A catalogue keeps what was published, version after version, each whole or absent; when a version turns out worse, it
# is withdrawn, and the one before it is given out again (S40).

# %%
catalogue = cn.Catalogue(bench.root / "catalogue")
version = catalogue.publish(chosen, event="concert", note="what the devices of notebook 6 take")
print(f"version {version.number} of {version.event}: {len(catalogue.artefacts('concert'))} models")

# %% tags=["check"]
assert all(abs(each.psnr_card - each.psnr_remeasured) < 0.2 for each in verified), verified
assert {card.family for card in cards} >= {name.split()[0] for name in students} | {"baked_field"}
assert len(ends) > 1, "the progressive file has one layer"
assert any(each.artefact for each in fitted.values())
smallest = min(cards, key=lambda card: card.bytes)
served = sum(each.artefact is not None for each in fitted.values())
print(f"{len(cards)} models, the smallest of {smallest.bytes / 1e3:.0f} kB ({smallest.quality.psnr:.1f} dB);")
print(f"{served} of {len(fitted)} device classes find one that fits, the others ask the network")

# %% [markdown]
# **Your prediction.** About half the time, where the processor multiplies integers (`onnx_int8_qdq`), and none of it
# where only the file is small (`onnx_int8_weights`). The rounding costs less than a tenth of a dB. On the air three or
# four bits are left of each number: divide the bytes of the smallest file by the student's numbers in [notebook
# 5](05_distil_light_field.ipynb).
#
# The artefacts are kept in `artefacts/` of this preset's folder of `runs/`.

# %% [markdown]
# ## What can go wrong
#
# - **A proxy is taken for a measurement.** A roofline knows arithmetic and memory, and nothing of an operation that a
#   neural processor does not support: that one runs on the CPU, with a copy there and another back. Measure on the
#   device before promising.
# - **int8 is slower than float.** It is on processors without integer dot products, and for formats that unpack to
#   float first. Read *computes in*.
# - **Colours wash out in int8.** The activations' range was taken from views unlike those shown. Calibrate with the
#   poses that people take.
# - **`verify` does not believe a card.** Another program ran meanwhile: milliseconds are of a quiet machine. When the
#   dB differ, it is another file.
# - **Warm devices.** A phone holds its speed for a minute and then slows down. Frame times here are of seconds.
# - **A mean hides the worst view.** Selection goes by the quality over all probe views together.

# %% [markdown]
# ## Exercises
#
# Write your own answer in a new cell; the folded cell below each exercise holds a solution that checks itself.
#
# **Exercise 1.** Design for a watch: it runs ONNX Runtime in int8 alone, has 32 MB for models, a link of 1 Mbit/s, and
# will wait ten seconds. What does it get, and which limit would you lift first to give it something better?

# %% jupyter={"source_hidden": true} tags=["solution"]
watch = cn.Capability(runtimes=("onnxruntime",), precisions=("int8",), memory_mb=32, link_mbit_s=1, rtt_ms=100)
wait = cn.Target(max_download_s=10)
on_watch = cn.select(artefacts, watch, wait)
print(on_watch.reason)
lifted = watch.model_copy(update={"precisions": ("int8", "float32")}), watch.model_copy(update={"link_mbit_s": 10.0})
for change, capability in zip(("float32", "10 Mbit/s"), lifted, strict=True):
    print(f"with {change}: {cn.select(artefacts, capability, wait).reason}")
assert on_watch.artefact is None or on_watch.artefact.card.computes_in == "int8"

# %% [markdown]
# **Exercise 2.** Find the format that hurts least: of all that make the lesson's student at least half as large, the
# one that loses least. Does it also make it faster?

# %% jupyter={"source_hidden": true} tags=["solution"]
halved = [card for card in of_student if card.bytes <= plain.bytes / 2]
gentlest = max(halved, key=lambda card: (card.quality.psnr, -card.bytes))
lost, times = plain.quality.psnr - gentlest.quality.psnr, plain.latency.median_ms / gentlest.latency.median_ms
print(f"{gentlest.stored_as}, {gentlest.coding}: {lost:.2f} dB lost, {times:.2f} times as fast")
assert gentlest.bytes <= plain.bytes / 2

# %% [markdown]
# **Exercise 3.** Accuracy first (S42): ask for at most 1 dB below the teacher on the laptop, whatever it takes. Then
# for the same within 1 MB.

# %% jupyter={"source_hidden": true} tags=["solution"]
best = cn.select(artefacts, here, cn.Target(min_psnr=teacher.psnr - 1))
print(best.reason)
assert best.artefact is not None
assert best.artefact.card.quality.psnr >= teacher.psnr - 1
light = cn.select(artefacts, here, cn.Target(min_psnr=teacher.psnr - 1, max_bytes=1_000_000))
print(light.reason)
assert light.artefact is None or light.artefact.card.bytes <= 1_000_000

# %% [markdown]
# ## Further reading
#
# - B. Jacob and others: [Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
#   Inference](https://arxiv.org/abs/1712.05877). CVPR 2018.
# - R. Krishnamoorthi: [Quantizing deep convolutional networks for efficient inference: A
#   whitepaper](https://arxiv.org/abs/1806.08342). 2018.
# - S. Han, H. Mao, W. J. Dally: [Deep Compression](https://arxiv.org/abs/1510.00149). ICLR 2016. Prune, quantize,
#   code.
# - S. Williams, A. Waterman, D. Patterson: [Roofline: an insightful visual performance model for multicore
#   architectures](https://doi.org/10.1145/1498765.1498785). CACM 52(4), 2009.
# - M. Mitchell and others: [Model Cards for Model Reporting](https://arxiv.org/abs/1810.03993). FAT* 2019.
# - [ONNX Runtime: quantize ONNX
#   models](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html). Documentation, as of 2026.
#
# **On to** [7 · The same view, twice](07_compare_views.ipynb).
