"""One tree of errors; where a class hangs says whose fault it is and what happens next.

FirstreadError
├── SenderError                  the sender's fault: refused with a status, never retried
│   ├── MalformedInstanceError   the data set cannot be understood
│   ├── InvalidUidError          a UID that is no UID
│   ├── ClassMismatchError       the data set is not of the announced SOP class
│   └── ConflictingInstanceError the same UID with other content; both are kept
├── ImageError                   this image's fault: its row fails, the batch goes on
│   ├── UnreadablePixelsError    no pixels, no decoder, or not single-frame greyscale
│   ├── OversizedImageError      larger than the bound that is set before decoding
│   ├── DecodeTimeoutError       decoding outlived its deadline
│   ├── DecodeCrashError         the decoding process died
│   ├── PredictionError          the model gave no finite answer for this image
│   └── NotEligibleError         a series or slide that its pipeline was not made for
├── OperatorError                the operator's fault: the process stops and says what to do
│   ├── ConfigurationError       a setting is missing or impossible
│   ├── BundleError              a model bundle is damaged or incomplete
│   ├── CheckpointError          a file of weights that cannot be imported
│   ├── TrainingDataError        a manifest, or what was made from it, cannot be used
│   ├── MigrationError           a migration gave way to services until it gave up
│   └── UnreachableError         a database or broker that does not answer at start
└── StorageUnavailableError      disk full or database away: the sender may try again

Anything else is a defect and crashes.
"""


class FirstreadError(Exception):
    """Base of all errors that this project raises on purpose."""


class SenderError(FirstreadError):
    """The sender's fault: refused with a status that does not ask for a retry."""


class MalformedInstanceError(SenderError):
    """The data set cannot be understood."""


class InvalidUidError(SenderError):
    """A UID that breaks PS3.5 section 9."""


class ClassMismatchError(SenderError):
    """The data set is not of the SOP class or instance that the command announced."""


class ConflictingInstanceError(SenderError):
    """The same SOP Instance UID came with other content; the first is kept, this one set aside."""


class ImageError(FirstreadError):
    """This image's fault: its row fails and the batch goes on."""


class UnreadablePixelsError(ImageError):
    """No pixels, no decoder for them, or not one greyscale frame."""


class OversizedImageError(ImageError):
    """More pixels declared than the bound that is checked before anything is decoded."""


class DecodeTimeoutError(ImageError):
    """Decoding outlived its deadline and was killed."""


class DecodeCrashError(ImageError):
    """The decoding process died."""


class PredictionError(ImageError):
    """The model gave no finite answer for this image."""


class NotEligibleError(ImageError):
    """A series or slide that the asked pipeline was not made for; the message is the reason."""


class OperatorError(FirstreadError):
    """The operator's fault: the process stops and the message says what to do next."""


class ConfigurationError(OperatorError):
    """A setting is missing or impossible; the message names it."""


class BundleError(OperatorError):
    """A model bundle is damaged, incomplete or unknown."""


class CheckpointError(OperatorError):
    """A file of weights, or of its tokenizer, cannot be imported; one line says why."""


class TrainingDataError(OperatorError):
    """A manifest, its images or features made from them cannot be used; says which and why."""


class MigrationError(OperatorError):
    """A migration gave way to the services that hold its tables until it gave up."""


class UnreachableError(OperatorError):
    """A database or broker does not answer."""


class StorageUnavailableError(FirstreadError):
    """Disk full or database away. Nothing was lost; the sender may try again."""
