"""Code bundles: the files of a flow's project that aren't installed, packed once per content and imported elsewhere.

A submit scans the imports (:mod:`.imports`), finds the files (:mod:`.locations`), chooses them (:mod:`.selection`) and
packs them (:mod:`.archive`). A process that runs flows unpacks them (:mod:`.cache`) and imports from them
(:mod:`.activation`). A program that opens a stored flow imports from them beside its own modules (:mod:`.programs`).
Start reading at :mod:`.selection`.
"""
