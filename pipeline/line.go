package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Chosen is an image of a study that is fit to be read.
type Chosen struct {
	Instance *Instance
	Frame    int // from 0
	// ViewUnknown: nothing in the header says that the view is frontal, so the model is asked.
	ViewUnknown bool
}

// Model reads one image. modelrt has it.
type Model interface {
	// Ref names the model.
	Ref() ModelRef
	// Read writes the report of one image: sentences with their evidence, findings, tokens, times. It leaves study and inputs to
	// its caller. A Refusal as error says that the image is not one that it reads. It is safe for concurrent use.
	Read(ctx context.Context, m *Image) (*Reading, error)
	// Preview returns the picture that the model sees, as a PNG file.
	Preview(m *Image) ([]byte, error)
}

// Steps are the verbs between a complete study and its documents, handed in by main.
type Steps struct {
	Select func(*Study) ([]Chosen, []Refusal)                   // in the order of preference
	Decode func(context.Context, Chosen) (*Image, error)        // a final error refuses the image, not the study
	Model  Model                                                //
	Write  func(*Study, *Reading, []Record) ([]Document, error) // earlier records of the study are its predecessors
	// Language of the reports, where it is another than the model's first: a study that was read in one is read again for the other.
	Language string
}

// NoImageError says that no image of a study can be read, and why.
type NoImageError struct{ Refused []Refusal }

// Error names every instance and its reason.
func (e *NoImageError) Error() string {
	if len(e.Refused) == 0 {
		return "the study has no instance"
	}
	var s []string
	for _, r := range e.Refused {
		s = append(s, fmt.Sprintf("%s: %s (%s)", r.SOPInstanceUID, r.Detail, r.Reason))
	}
	return "no image of the study is read: " + strings.Join(s, "; ")
}

// Unwrap makes a NoImageError an ErrNotImage.
func (e *NoImageError) Unwrap() error { return ErrNotImage }

// Key names a reading by what it is made from: the study, the set of its readable images, the model and the language. The same set read by
// the same model has the same key, whatever the order of arrival.
func (s *Steps) Key(st *Study) string { return s.key(st, s.Model.Ref().Digest, s.Language) }

// about tells whether a record is of the images that a study has now, whichever model has read them.
func (s *Steps) about(st *Study, r *Record) bool {
	return r.Reading != nil && (r.Key == s.key(st, r.Reading.Model.Digest, "") || r.Key == s.key(st, r.Reading.Model.Digest, r.Reading.Language))
}

func (s *Steps) key(st *Study, model Digest, language string) string {
	chosen, _ := s.Select(st)
	var digests []string
	for _, c := range chosen {
		digests = append(digests, c.Instance.Digest.String())
	}
	slices.Sort(digests)
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%s\n", st.StudyInstanceUID, strings.Join(slices.Compact(digests), "\n"), model)
	if language != "" {
		fmt.Fprintf(h, "%s\n", language)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Sight is the image of a study that is to be read, decoded.
type Sight struct {
	StudyInstanceUID string
	Chosen           Chosen
	Image            *Image
	Refused          []Refusal // what comes before it or is not fit, and why that is not read
	Rest             []Chosen  // what comes after it
}

// Look chooses the image of a study that is to be read and decodes it. An image that can never be decoded gives way to the next; the
// error is a *NoImageError when none is left. One that cannot be decoded now (the disk, a missing part) fails the study.
func (s *Steps) Look(ctx context.Context, st *Study) (*Sight, error) {
	chosen, refused := s.Select(st)
	return s.look(ctx, st.StudyInstanceUID, chosen, refused)
}

func (s *Steps) look(ctx context.Context, study string, chosen []Chosen, refused []Refusal) (*Sight, error) {
	for i, c := range chosen {
		img, err := s.Decode(ctx, c)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil && !final(err) {
			return nil, fmt.Errorf("decoding instance %s: %w", c.Instance.SOPInstanceUID, err)
		}
		if err != nil {
			refused = append(refused, Refusal{SOPInstanceUID: c.Instance.SOPInstanceUID, Reason: refusalReason(err), Detail: err.Error()})
			continue
		}
		img.ViewUnknown = c.ViewUnknown
		return &Sight{study, c, img, refused, chosen[i+1:]}, nil
	}
	return nil, &NoImageError{Refused: refused}
}

// Read lets the model read what Look has found; where the model refuses the image, the next one takes its place. It returns what was
// read beside the Reading. The error is a *NoImageError when no image is left. created becomes Reading.Created.
func (s *Steps) Read(ctx context.Context, seen *Sight, created time.Time) (*Reading, *Sight, error) {
	r, err := s.Model.Read(ctx, seen.Image)
	for refusal := (Refusal{}); errors.As(err, &refusal); r, err = s.Model.Read(ctx, seen.Image) {
		if seen, err = s.look(ctx, seen.StudyInstanceUID, seen.Rest, append(seen.Refused, refusal)); err != nil {
			return nil, nil, err
		}
	}
	in := seen.Chosen.Instance
	if err != nil {
		return nil, nil, fmt.Errorf("reading instance %s: %w", in.SOPInstanceUID, err)
	}
	r.StudyInstanceUID, r.Inputs, r.Refused = seen.StudyInstanceUID, []InputRef{InputOf(in, seen.Chosen.Frame)}, seen.Refused
	for _, other := range seen.Rest {
		r.Refused = append(r.Refused, Refusal{SOPInstanceUID: other.Instance.SOPInstanceUID, Reason: "not-first",
			Detail: "this model reads one image of a study, and another one comes first"})
	}
	r.Inputs[0].ViewByModel = seen.Chosen.ViewUnknown
	r.Created, r.Phantom = created.UTC().Truncate(time.Second), in.Header.IsPhantom()
	return r, seen, nil
}

func refusalReason(err error) string {
	var refusal Refusal
	if errors.As(err, &refusal) {
		return refusal.Reason
	}
	for _, r := range []struct {
		err  error
		word string
	}{{ErrUnsupported, "unsupported"}, {ErrUnknown, "unknown"}, {ErrNotImage, "not-an-image"}} {
		if errors.Is(err, r.err) {
			return r.word
		}
	}
	return "invalid"
}

// InputOf names a frame (from 0) of an instance as documents do.
func InputOf(in *Instance, frame int) InputRef {
	ref := InputRef{SeriesInstanceUID: in.SeriesInstanceUID, SOPInstanceUID: in.SOPInstanceUID, SOPClassUID: in.SOPClassUID,
		Modality: in.Header.String(TagModality), ViewPosition: in.Header.String(TagViewPosition), Digest: in.Digest}
	if n, ok := in.Header.Int(TagNumberOfFrames); ok && n > 1 {
		ref.Frame = frame + 1
	}
	return ref
}
