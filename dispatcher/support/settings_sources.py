"""The sources of settings: environment variables, and the configuration file. Used by :mod:`dispatcher.settings`."""

from __future__ import annotations

import json
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource

from dispatcher.support import config_file, settings_errors, settings_files, settings_words
from dispatcher.support.json_documents import DuplicateKey, read_document

#: Kinds of settings that are lists of words, whose variables may be written ``a,b``.
_WORDS = (tuple[str, ...], frozenset[str])


class Variables(EnvSettingsSource):
    """The variables. JSON in them is read strictly: a key may not occur twice. A list of words may be ``a,b``, too."""

    def decode_complex_value(self, field_name: str, field: FieldInfo | None, value: Any) -> Any:
        """Return the value of a list or an object.

        Raises:
            NotJson: the text is neither JSON nor, where words are allowed, a list of them.
        """
        if field is not None and field.annotation in _WORDS and (words := settings_words.split(value)):
            return words
        try:
            return read_document(value)
        except DuplicateKey as error:
            raise settings_errors.NotJson(value, str(error)) from None
        except (ValueError, RecursionError):
            raise settings_errors.NotJson(value) from None


class ConfigurationFile(PydanticBaseSettingsSource):
    """The configuration file. Relative paths in it are relative to its folder, and signing keys may be a table."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return nothing: all values are read together."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the file's tables and values."""
        file = config_file.current()
        values = settings_files.resolved(file.settings, self.settings_cls, file.folder)
        if isinstance(keys := values.get("signing_keys"), dict):
            values["signing_keys"] = json.dumps(keys)
        return values
