# %% [markdown]
# # 1 · What a crowd sends, and what of it helps
#
# **Question.** 48 people raised their phones, three times each. Which of the 144 photos should a radiance field be
# trained on, and can a program tell without knowing the scene?
#
# **Predict.** Some photos are blurred, some over-exposed, some dark, some show the wrong direction. How many of the
# 144? And which is harder to find by measuring pixels: a dark photo or a blurred one?
#
# **Time.** Half a minute on two CPU cores; a GPU changes nothing.
#
# **Needs.** Nothing; the concert is in the box.

# %%
import math
from collections import Counter
from dataclasses import replace

import crowdnerf_lab as cn
from crowdnerf_lab.captures.photos import PhotoError, read_photo
from crowdnerf_lab.captures.screening import ScreeningLimits

# %% tags=["parameters"]
preset = "standard"

# %%
bench = cn.open_workbench(preset)

# %% [markdown]
# ## A capture is photos and what the phone knew
#
# Each UE's contribution is a *capture*: its photos and clips, its device, what its owner consents to, and for every
# photo the time, the focal length and the pose as the phone reports it (rows S22, S62). One versioned `manifest.json`
# holds the event. Poses are camera-to-world, $x_{world} = R\,x_{camera} + t$, with OpenCV axes (x right, y down, z
# forward) and metres east, north, up.

# %%
captures = cn.concert()
captures.captures[0].photos[0].model_dump(exclude={"truth"})

# %% [markdown]
# `truth` was left out of this print. The photos are rendered, so the exact pose, exposure and blur of each are known;
# the lab uses them to *grade* what it does, never to do it.
#
# ## Nothing that is uploaded is trusted
#
# A file may be cut short, empty, huge or no picture at all. Reading one gives an error that names the file and the
# remedy; screening turns it into a row of its report and goes on with the rest (S63).

# %%
whole = captures.path_of(captures.photos[0].file).read_bytes()
broken = bench.root / "broken.jpg"
for content in (b"", whole[: len(whole) // 2], b"GIF89a, or so"):
    broken.write_bytes(content)
    try:
        read_photo(broken)
    except PhotoError as error:
        print(str(error).replace(str(bench.root), "."))
broken.unlink()

# %% [markdown]
# ## Screening: each photo against the same phone's others
#
# Sharpness is measured by how strongly neighbouring pixels differ, on a logarithmic scale (a *stop* is a factor of
# two), and brightness in the highlights. Their absolute values say little: a wide shot of a dark hall and a close one
# of a bright stage differ tenfold, and so do two phones. So a photo is compared with the others of *its own* UE, and
# direction with where the crowd as a whole looks (S64).

# %%
screened, report = cn.screen(captures)
cn.figures.screening_margins(report)

# %% [markdown]
# Each dot is a photo, above the line when it passes the check. Compare the shapes: where a clear gap lies between the
# rejected and the rest, any threshold in the gap would do; where the dots form a ramp, the threshold is a choice. A
# photo may fail several checks; the first that it fails is given as the reason.

# %%
names = {row.photo: cn.figures.REASONS[row.check] for row in report.rejected}
cn.figures.contact_sheet(
    [read_photo(captures.path_of(photo.file)) for photo in captures.photos],
    captions=[photo.file for photo in captures.photos],
    reasons=[names.get(photo.file) for photo in captures.photos],
)

# %% [markdown]
# All the crowd sent, three photos a phone, in reading order. Arms and heads in front of the lens are no reason to
# reject: the rest of such a photo is good, and [notebook 3](03_train_radiance_field.ipynb) copes with the part that
# is not.
#
# ## Who stood where
#
# The poses are the phones' own: GPS for position, compass and accelerometers for direction (S11).

# %%
cn.figures.crowd_map(captures, report)

# %% [markdown]
# Frusta at the same height would be the truth for people on a flat floor; GPS does not know heights well, and some
# phones float or sink by metres. How much that matters is the question of the [next
# notebook](02_calibrate_cameras.ipynb).
#
# ## Was the screening right?
#
# Now the truth may speak: 14 photos were spoiled on purpose.

# %%
spoiled = {photo.file: photo.truth.spoiled_by for photo in captures.photos if photo.truth and photo.truth.spoiled_by}
found = {row.photo: row.check for row in report.rejected}
cn.figures.table(
    {
        "spoiled by": kind,
        "photos": sum(spoiler == kind for spoiler in spoiled.values()),
        "rejected": sum(file in found for file, spoiler in spoiled.items() if spoiler == kind),
        "rejected for": ", ".join(f"{n}× {cn.figures.REASONS[check]}" for check, n in Counter(
            found[file] for file, spoiler in spoiled.items() if spoiler == kind and file in found).items()) or None,
    }
    for kind in dict.fromkeys(spoiled.values())
)  # fmt: skip

# %% tags=["check"]
caught, alarms = len(found.keys() & spoiled.keys()), len(found.keys() - spoiled.keys())
assert caught >= 0.75 * len(spoiled), f"only {caught} of {len(spoiled)} spoiled photos were found"
assert alarms <= 0.05 * len(captures.photos), f"{alarms} good photos were rejected"
cn.write_captures(screened, bench.root / "screened")
print(f"{report.summary()}; {caught} of {len(spoiled)} spoiled ones found, {alarms} false alarms")

# %% [markdown]
# The screened event is kept in `screened/` of this preset's folder: a folder like the one it came from, with fewer
# photos.
#
# ## Exercises
#
# Write your own answer in a new cell; the folded cell below each exercise holds a solution that checks itself.
#
# **Exercise 1.** Be strict: reject photos half a stop less sharp than their UE's others. How many good photos does it
# cost among the first 48?

# %% jupyter={"source_hidden": true} tags=["solution"]
some = captures.keeping([photo.file for photo in captures.photos[:48]])
_, strict = cn.screen(some, limits=ScreeningLimits(soft=0.5))
_, usual = cn.screen(some)
newly = {row.photo for row in strict.rejected} - {row.photo for row in usual.rejected}
print(f"{len(newly)} more of 48 photos are rejected, {len(newly - spoiled.keys())} of them good")
assert {row.photo for row in usual.rejected} <= {row.photo for row in strict.rejected}

# %% [markdown]
# **Exercise 2.** A person withdraws consent. Take the first UE's consent to train away and screen again: what happens
# to its photos, and does the report say why?

# %% jupyter={"source_hidden": true} tags=["solution"]
first = captures.captures[0]
withdrawn = first.model_copy(update={"consent": first.consent.model_copy(update={"train": False})})
left, after = cn.screen(replace(captures, captures=(withdrawn, *captures.captures[1:8])))
assert {row.check for row in after.rejected if row.ue == first.ue} == {"consent"}
assert first.ue not in {capture.ue for capture in left.captures}

# %% [markdown]
# **Exercise 3.** How far do the phones err? Compare reported and true positions of the photos that were kept: the
# median error in metres, across the ground and in height.

# %% jupyter={"source_hidden": true} tags=["solution"]
both = [(photo.reported.camera_to_world, photo.truth.camera_to_world) for photo in screened.photos]
ground = sorted(math.hypot(a[0][3] - b[0][3], a[1][3] - b[1][3]) for a, b in both)[len(both) // 2]
height = sorted(abs(a[2][3] - b[2][3]) for a, b in both)[len(both) // 2]
print(f"median error {ground:.1f} m across the ground, {height:.1f} m in height")
assert 0.5 < ground < 10
assert 0.5 < height < 10

# %% [markdown]
# **On to** [2 · Calibrating cameras](02_calibrate_cameras.ipynb).
