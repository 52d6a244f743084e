"""`python -m tests.cassettes [FOLDER]`: record all scenes again from the stand-in, and if
OPENAI_API_KEY is set, from that provider too.

A provider's cassettes are written to FOLDER/provider, separate from the committed ones.
OPENAI_BASE_URL sets the provider's address, CASSETTES_MODEL its model.
"""

import sys
from pathlib import Path

from tests.cassettes.studio import FOLDER, provider_of_environment, record, record_from, scenes


def main(folder: Path) -> None:
    """Record, and print what was recorded."""
    for scene in scenes():
        print(f"{record(scene, folder):4} calls  {scene.file}")
    provider = provider_of_environment()
    if provider is None:
        print("From the stand-in alone: with OPENAI_API_KEY set, that provider is recorded too.")
        return
    for scene in scenes():
        print(
            f"{record_from(provider, scene, folder / 'provider'):4} calls  provider/{scene.file}, said by {provider.model}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
