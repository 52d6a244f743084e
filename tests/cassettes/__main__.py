"""`python -m tests.cassettes [FOLDER]`: record all scenes afresh from the stand-in, and where
OPENAI_API_KEY is set from that provider too.

What a provider said goes to FOLDER/provider, beside what is committed and compared. OPENAI_BASE_URL
says where it is, CASSETTES_MODEL which of its models is asked.
"""

import sys
from pathlib import Path

from tests.cassettes.studio import FOLDER, provider_of_environment, record, record_from, scenes


def main(folder: Path) -> None:
    """Record, and say what was recorded."""
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
