package pipeline

import "errors"

// The sentinels of the house. Every error that leaves a room wraps one of them, so that one table can turn it into an HTTP status,
// a DICOM failure reason or an exit code. An error's text never holds patient data.
var (
	ErrInvalid     = errors.New("invalid")     // the input breaks the standard or our limits
	ErrUnsupported = errors.New("unsupported") // the input is of the standard, but we cannot do it
	ErrUnknown     = errors.New("unknown")     // nothing of the standard
	ErrNotImage    = errors.New("not an image")
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("conflict")    // the same UID with other content
	ErrBusy        = errors.New("busy")        // try again later
	ErrUnavailable = errors.New("unavailable") // something elsewhere that is needed does not answer, or not as agreed; it may pass
	ErrFull        = errors.New("disk full")
	ErrMissingPart = errors.New("missing run-time part")
	ErrModel       = errors.New("the model failed") // it gave nothing that may leave: no sentence, no end of a run, numbers that are not finite
)

// final tells whether an error stays what it is when the same is tried again: it is about the input, not about the machine.
func final(err error) bool {
	for _, e := range []error{ErrInvalid, ErrUnsupported, ErrUnknown, ErrNotImage, ErrNotFound, ErrConflict, ErrModel} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
