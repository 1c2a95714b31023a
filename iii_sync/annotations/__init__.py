"""What annotations say about JSON values: their schemas, and how payloads become what they name.

Read :mod:`.schema` first, which reads an annotation; :mod:`.kinds` has what it may name, :mod:`.hints` what it means
where it is text, :mod:`.formats` the schemas that are listed with functions and trigger types.

Imports nothing: all but :mod:`.formats` wait for somebody who has annotations.
"""
