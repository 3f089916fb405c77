"""What the listener accepts: every storage SOP class in every transfer syntax, and C-ECHO."""

from functools import cache

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom import (
    ALL_TRANSFER_SYNTAXES,
    DEFAULT_TRANSFER_SYNTAXES,
    AllStoragePresentationContexts,
    register_uid,
)
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,  # pyright: ignore[reportAttributeAccessIssue]
    Verification,  # pyright: ignore[reportAttributeAccessIssue]
    uid_to_service_class,
)

# Of the syntaxes that one context offers, the first of these is taken: no loss before small size,
# and what nothing has to decode before what something does.
_PREFERRED = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless SV1
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.201",  # HTJ2K Lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K Lossless RPCL
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
)
# Not composite objects of a patient (nothing to triage and no study to put them in), or never
# on the network.
_NOT_COMPOSITE = (
    "1.2.840.10008.1.3.10",  # Media Storage Directory
    "1.2.840.10008.1.20.1",  # Storage Commitment
    "1.2.840.10008.1.20.2",
    "1.2.840.10008.5.1.4.1.1.200.1",  # Defined Procedure Protocols, Protocol Approval
    "1.2.840.10008.5.1.4.1.1.200.3",
    "1.2.840.10008.5.1.4.1.1.200.7",
    "1.2.840.10008.5.1.4.1.1.201.1",  # Inventory
    "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol
    "1.2.840.10008.5.1.4.39.1",  # Color Palette
    "1.2.840.10008.5.1.4.43.1",  # Implant Templates
    "1.2.840.10008.5.1.4.44.1",
    "1.2.840.10008.5.1.4.45.1",
)
# Retired, and none was ever an encoding of a DIMSE message.
_NOT_ON_THE_NETWORK = (
    "1.2.840.10008.1.2.6.1",  # RFC 2557 MIME
    "1.2.840.10008.1.2.6.2",  # XML
    "1.2.840.10008.1.20",  # Papyrus 3
)


class SharedContexts(list[PresentationContext]):
    """Contexts that all associations share: an acceptor's negotiation reads and never changes them.

    pynetdicom copies the server's contexts deeply for each association, 60 UIDs for each of 200
    classes: a tenth of a second. This is the one place that makes it a copy of the list alone.
    """

    def __deepcopy__(self, _memo: dict[int, object]) -> "SharedContexts":
        return SharedContexts(self)


@cache
def transfer_syntaxes() -> tuple[str, ...]:
    """List every transfer syntax that a network object can have, retired ones too, ours first."""
    known = [*ALL_TRANSFER_SYNTAXES, *_of_kind("Transfer Syntax")]
    rest = (uid for uid in dict.fromkeys(known) if uid not in _NOT_ON_THE_NETWORK)
    return tuple(dict.fromkeys([*_PREFERRED, *rest]))


@cache
def storage_classes() -> tuple[str, ...]:
    """List every storage SOP class of the standard for composite objects, retired ones too."""
    current = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    named = [uid for uid in _of_kind("SOP Class") if "Storage" in UID_dictionary[uid][0]]
    return tuple(uid for uid in dict.fromkeys([*current, *named]) if uid not in _NOT_COMPOSITE)


def supported_contexts() -> SharedContexts:
    """Make the contexts of the listener, and tell pynetdicom of the classes that it has dropped."""
    for uid in storage_classes():
        if uid_to_service_class(uid) is not StorageServiceClass:
            register_uid(uid, UID(uid).keyword, StorageServiceClass)
    contexts = SharedContexts([_context(str(Verification), DEFAULT_TRANSFER_SYNTAXES)])
    contexts.extend(_context(uid, transfer_syntaxes()) for uid in storage_classes())
    return contexts


@cache
def peer_contexts(*, store: bool, storage_commitment: bool) -> SharedContexts:
    """Make the contexts that a peer may use; what it may not, it finds unsupported."""
    every = supported_contexts()
    contexts = SharedContexts(every if store else every[:1])
    if storage_commitment:
        contexts.append(_context(str(StorageCommitmentPushModel), DEFAULT_TRANSFER_SYNTAXES))
    return contexts


def _context(abstract_syntax: str, syntaxes: tuple[str, ...] | list[str]) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = UID(abstract_syntax)
    context.transfer_syntax = list(syntaxes)
    return context


def _of_kind(kind: str) -> list[str]:
    return [uid for uid, entry in UID_dictionary.items() if entry[1] == kind]
