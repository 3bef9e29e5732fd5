"""MONAI bundles as data: read within bounds, checked word by word, and only then mapped to training of our own.

MONAI runs a bundle by importing whatever `_target_` names and handing every `$` text to Python's `eval`, so loading
one is running its author's code (its advisories GHSA-x6pr-233j-x5cw, GHSA-873f-pvrv-4x83 and GHSA-wvpx-5qmp-46g3 say
so). Nothing of `monai.bundle` is used here. Everything in a bundle's configuration falls into one of three classes:

| class | what | what happens |
|---|---|---|
| used | network, loss, optimizer, schedule, transforms, inferers on the allow-list | read by the evaluator here |
| left out | what a hospital does in its own way: reading data, loops, handlers, files | named, and never run |
| refused | anything else, wherever it stands | the bundle as a whole is refused, with the exact place |
"""
