package dicom

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// Syntax describes a transfer syntax of the standard (PS3.6 table A-1) for the conformance statement and for messages.
type Syntax struct {
	UID, Name    string
	Encapsulated bool // pixels are compressed fragments
	Decodes      bool // we decode its images
	NeedsCodecs  bool // that takes the codec module
	Encodes      bool // Write writes it
}

// encoded is one compressed frame on its way to a decoder.
type encoded struct {
	layout layout
	data   []byte // the codestream, read only
}

// syntax is a registered transfer syntax.
type syntax struct {
	Syntax
	enc     coding
	deflate bool
	// decode makes native words of one frame; nil where we cannot.
	decode func(ctx context.Context, e encoded) (*Pixels, error)
	// encode makes the codestream of one frame; nil where we cannot.
	encode func(ctx context.Context, p *Pixels) ([]byte, error)
	// video: the fragments are one stream, which has frames, and not frames (PS3.5 sections 8.2.5 to 8.2.8).
	video bool
	// lossy is the defined term of Lossy Image Compression Method (PS3.3 section C.7.6.1.1.5.1) that encode earns; "" if lossless.
	lossy string
}

var syntaxes = map[string]*syntax{}

// register adds a transfer syntax. A second one with the same UID is a programmer's mistake and panics.
func register(s syntax) {
	if _, ok := syntaxes[s.UID]; ok {
		panic("dicom: transfer syntax " + s.UID + " is registered twice")
	}
	s.Encapsulated = s.Encapsulated || s.decode != nil
	s.Decodes = s.decode != nil || !s.Encapsulated
	s.Encodes = s.encode != nil || !s.Encapsulated
	syntaxes[s.UID] = &s
}

// Syntaxes lists the transfer syntaxes of the standard in the order of their UIDs.
func Syntaxes() []Syntax {
	var out []Syntax
	for _, s := range syntaxes {
		out = append(out, s.Syntax)
	}
	slices.SortFunc(out, func(a, b Syntax) int { return slices.Compare(arcs(a.UID), arcs(b.UID)) })
	return out
}

func arcs(uid string) []int {
	var out []int
	for _, s := range strings.Split(uid, ".") {
		n, _ := strconv.Atoi(s) // a UID of the registry has numbers only
		out = append(out, n)
	}
	return out
}

// lookupSyntax finds a transfer syntax. The UID must be valid already.
func lookupSyntax(uid string) (*syntax, error) {
	s, ok := syntaxes[uid]
	if !ok {
		return nil, fmt.Errorf("%w transfer syntax %s: it is not of the standard (private?); convert the object to Explicit VR Little Endian", pipeline.ErrUnknown, uid)
	}
	return s, nil
}
