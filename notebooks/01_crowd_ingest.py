# %% [markdown]
# # 1 · What a crowd sends, and what of it helps
#
# **Question.** 48 people raised their phones, three times each. Which of the 144 photos should a radiance field be
# trained on, and can a program tell without knowing the scene?
#
# **Predict.** Some photos are blurred, some over-exposed, some dark, some show the wrong direction. How many of the
# 144? And which is harder to find by measuring pixels: a dark photo or a blurred one?
#
# **Time.** 1 minute on two CPU cores; a GPU changes nothing.
#
# **Needs.** Nothing; the concert is in the box. Or a folder of your own: name it in the parameter `folder`, and the
# lesson is about your photos and videos.

# %%
from collections import Counter
from dataclasses import replace

import torch
from skimage.data import astronaut

import crowdnerf_lab as cn
from crowdnerf_lab.captures.example_upload import write_example_upload
from crowdnerf_lab.captures.screening.screen import ScreeningLimits

# %% tags=["parameters"]
preset = "standard"
folder = ""

# %%
bench = cn.open_workbench(preset, folder=folder)

# %% [markdown]
# ## Whatever a phone or another program writes
#
# People bring JPEG and HEIC photos and videos as they come off a phone, or a scene whose cameras another program has
# found already. `read_captures` looks into a folder, recognises what lies there, and says how it understood the poses
# (row S62). Nothing is copied and no picture is opened.

# %%
data = cn.concert().root.parent
places = {"photos off phones": "concert/train", "a scene made in Blender": "object", "this lab's own": "concert"}
read = {name: cn.read_captures(data / place) for name, place in places.items()}
cn.figures.table(
    {
        "what lies there": name,
        "recognised as": captures.source.kind,
        "how poses are understood": captures.source.convention,
        "UEs": len(captures.captures),
        "photos": len(captures.photos),
    }
    for name, captures in read.items()
)

# %% [markdown]
# What the phones' EXIF tells becomes metres east, north and up around the crowd's middle. One photo's record:

# %%
read["photos off phones"].photos[0].model_dump(exclude_none=True)

# %% [markdown]
# ## A small upload, as people send it
#
# Four of the concert's phones, each with its photos; three also filmed. One person forwarded somebody else's photo,
# one file was cut short on the way, one is a web page that calls itself a photo, and one photo shows a face: the
# astronaut Eileen Collins, photographed by NASA, stands in for the friend beside you.

# %%
upload = write_example_upload(cn.concert(), bench.root / "upload", portrait=torch.from_numpy(astronaut()))
sorted(str(file.relative_to(upload.root)) for file in upload.root.rglob("*.*"))

# %% [markdown]
# ## Faces go before anything is written
#
# A face is found by a small network (CenterFace, Xu et al. 2019) in the picture at many sizes and lying any way, and
# its place is filled from the surroundings: a blur could be undone, a fill holds nothing of the face (row S20). The
# price of missing nobody is that things which are no faces are filled as well.

# %%
portrait = torch.from_numpy(astronaut())
faces = cn.find_faces(portrait)
safe = cn.anonymised(portrait, faces)
cn.figures.image_strip({"as it was": portrait, f"what is kept ({len(faces)} face)": safe}, columns=2)

# %% [markdown]
# ## Taking it in
#
# Now the whole upload. Every file is opened in a process of its own that may take so much time and memory and no
# more, for a picture can be made to crash its reader. What is kept are pixels without faces and without a word of
# metadata, and beside them a manifest with what calibration needs (rows S22, S63). A run that is killed goes on where
# it was.

# %%
received, intake = cn.ingest(upload.root, bench.root / "taken_in", screening=ScreeningLimits())
cn.figures.table(
    {
        "file": row.file,
        "became": row.outcome,
        "photos": row.photos,
        "faces filled": row.faces,
        "why": row.reason,
    }
    for row in intake.rows
)

# %% [markdown]
# Nobody's bad file stops the others: it becomes a row with its reason. All that was kept was then screened as one
# event, which also finds the photo that was forwarded:

# %%
for row in intake.screening.rejected:
    print(f"{row.photo}: {row.reason}")

# %% [markdown]
# A clip became several photos. Which ones?
#
# ## The frames of a clip
#
# A phone that swings fast blurs what it sees, and one that stands still says the same thing thirty times a second. So
# frames are spaced by how far the picture has *moved*, and the sharpest of each stretch is taken. This phone swung
# slowly, but fast between 1.5 and 1.8 seconds and again at 3.

# %%
clip = upload.root / next(iter(upload.clips.values()))
frames = cn.select_frames(clip)
cn.figures.image_strip({f"{frame.time_s:.2f} s": frame.image for frame in frames}, columns=6)

# %% [markdown]
# No frame is from the middle of a swing.
#
# ## One clock
#
# Phones' clocks disagree by seconds, and a video's container often tells whole seconds only. But all of them hear the
# same stage. Two recordings are compared by generalised cross-correlation with phase transform (Knapp and Carter 1976):
# the peak is where they agree, less what sound needs to travel, 2.9 ms a metre. Where it is no clear peak, the phone's
# own clock stands.

# %%
clocks, report = cn.synchronise(cn.read_captures(upload.root))
begun = {capture.ue: capture.clips[0].time_s for capture in clocks.captures if capture.clips}
cn.figures.table(
    {
        "UE": row.ue,
        "set by": row.method,
        "moved by, s": row.offset_s,
        "confidence": row.confidence,
        "its clock was wrong by, s": upload.clock_s.get(row.ue),
    }
    for row in report.rows
)

# %% [markdown]
# Only differences can be heard, so the middle phone stands still and the others move to it. What is left of the error,
# now that the truth may speak:

# %%
late = {ue: begun[ue] - upload.begun_s[ue] for ue in begun}
middle = sorted(late.values())[len(late) // 2]
print(", ".join(f"{ue} {1000 * (seconds - middle):+.0f} ms" for ue, seconds in late.items()))

# %% [markdown]
# ## Nobody is kept against their will
#
# A contributor may withdraw. `forget` removes their files, what was published and what caches hold of them, and names
# the models that learned from their photos.

# %%
gone = cn.forget(received.captures[0].ue, bench.root / "taken_in")
print(gone.summary())

# %% [markdown]
# ## Screening: each photo against the same phone's others
#
# From here on it is the whole concert, 144 photos of 48 phones (or your own folder). Sharpness is measured by how
# strongly neighbouring pixels differ, on a logarithmic scale (a *stop* is a factor of two), and brightness in the
# highlights. Their absolute values say little: a wide shot of a dark hall and a close one of a bright stage differ
# tenfold, and so do two phones. So a photo is compared with the others of *its own* UE, and direction, place and time
# with the crowd as a whole (row S64). Other checks ask what the picture *is*: a photo, a drawing, a photo of a
# display, one that was sent before.

# %%
captures = bench.received()
screened, report = cn.screen(captures)
cn.figures.screening_margins(report)

# %% [markdown]
# Each dot is a photo, above the line when it passes the check. Compare the shapes: where a clear gap lies between the
# rejected and the rest, any threshold in the gap would do; where the dots form a ramp, the threshold is a choice. A
# photo may fail several checks; the first that it fails is given as the reason.

# %%
cn.figures.screening_sheet(captures, report)

# %% [markdown]
# All the crowd sent, the rejected first. Arms and heads in front of the lens are no reason to reject: the rest of such
# a photo is good, and [notebook 3](03_train_radiance_field.ipynb) copes with the part that is not.
#
# ## Who stood where
#
# The poses are the phones' own: GPS for position, compass and accelerometers for direction (row S11).

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
assert {row.file for row in intake.refused} == set(upload.broken), "what is broken is refused, and nothing else"
assert len(faces) == 1
assert abs(begun["ue00"] - upload.begun_s["ue00"] - middle) < 0.05, "clocks differ by more than sound's travel explains"
caught, alarms = len(found.keys() & spoiled.keys()), len(found.keys() - spoiled.keys())
if bench.folder is None:
    assert caught >= 0.75 * len(spoiled), f"only {caught} of {len(spoiled)} spoiled photos were found"
    assert alarms <= 0.05 * len(captures.photos), f"{alarms} good photos were rejected"
cn.write_captures(screened, bench.root / "screened")
known = f"; {caught} of {len(spoiled)} spoiled ones found, {alarms} false alarms" if spoiled else ""
print(report.summary() + known)

# %% [markdown]
# **Your prediction.** Fourteen of the 144 were spoiled. Compare the margins of *dark* and *blurred*: the less a check
# separates the two kinds, the more its threshold is a matter of taste. A dark photo is dark wherever it is measured; a
# sharp photo of a smooth thing looks like a blurred one of a rough thing.
#
# The screened event is kept in `screened/` of this preset's folder: a folder like the one it came from, with fewer
# photos.

# %% [markdown]
# ## What can go wrong
#
# - **A phone that blurs everything.** Each photo is compared with the others of its phone, so a phone that is soft as
#   a whole is not punished for it, on purpose; a photo that is alone is judged against the crowd.
# - **A crowd that is wrong together.** Direction and place are compared with what most phones say. If most stood in
#   the foyer, the stage would be the mistake.
# - **Photos without place or time.** Messengers strip EXIF. Such photos are kept, and structure from motion ([notebook
#   2](02_calibrate_cameras.ipynb)) may still find where they were taken.
# - **A face that was not found.** Small, turned or covered ones are missed: of upright faces of 20 pixels and more,
#   one in twenty. Filling lowers a risk; it is no proof of anonymity, and consent remains what permits publication.
# - **No common sound.** Music through a wall and two phones far apart give no clear peak; then the phone's own clock
#   stands, and the table says `device`.
# - **A video or HEIC file that cannot be read.** The error names the extra to install.

# %% [markdown]
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
# **Exercise 2.** A person withdraws consent to training only. Take it from the first UE and screen again: what
# happens to its photos, and does the report say why?

# %% jupyter={"source_hidden": true} tags=["solution"]
first = captures.captures[0]
withdrawn = first.model_copy(update={"consent": first.consent.model_copy(update={"train": False})})
left, after = cn.screen(replace(captures, captures=(withdrawn, *captures.captures[1:8])))
assert {row.check for row in after.rejected if row.ue == first.ue} == {"consent"}
assert first.ue not in {capture.ue for capture in left.captures}

# %% [markdown]
# **Exercise 3.** Turn the astronaut by a quarter, and shrink her photo to an eighth. Is she still found?

# %% jupyter={"source_hidden": true} tags=["solution"]
lying, small = portrait.rot90().contiguous(), portrait[::8, ::8].contiguous()
print(f"lying down: {len(cn.find_faces(lying))} face, 64 pixels wide: {len(cn.find_faces(small))}")
assert cn.find_faces(lying)

# %% [markdown]
# ## Further reading
#
# - C. H. Knapp, G. C. Carter: [The generalized correlation method for estimation of time
#   delay](https://doi.org/10.1109/TASSP.1976.1162830). IEEE Trans. ASSP 24(4), 1976.
# - Y. Xu, W. Yan, G. Yang, J. Luo, T. Li, J. He: [CenterFace: Joint Face Detection and Alignment Using Face as
#   Point](https://arxiv.org/abs/1911.03599). 2019.
# - R. McPherson, R. Shokri, V. Shmatikov: [Defeating Image Obfuscation with Deep
#   Learning](https://arxiv.org/abs/1609.00408). 2016. Why faces are filled and not blurred.
# - S. Pertuz, D. Puig, M. A. Garcia: [Analysis of focus measure operators for
#   shape-from-focus](https://doi.org/10.1016/j.patcog.2012.11.011). Pattern Recognition 46(5), 2013. Three dozen ways
#   to measure sharpness.
#
# **On to** [2 · Calibrating cameras](02_calibrate_cameras.ipynb).
