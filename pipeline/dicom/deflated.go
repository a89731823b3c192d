package dicom

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"

	"chatxray/pipeline"
)

// DeflatedExplicitVRLittleEndian is the transfer syntax of a deflated data set (PS3.5 annex A.5).
const DeflatedExplicitVRLittleEndian = "1.2.840.10008.1.2.1.99"

func init() {
	register(syntax{Syntax: Syntax{UID: DeflatedExplicitVRLittleEndian, Name: "Deflated Explicit VR Little Endian"}, deflate: true})
}

// A deflated data set may become this much larger than its file before the header has said how large the image is.
const (
	baseInflation = 8 << 20
	sizeInflation = 4
	maxInflated   = 256 << 20 // all of it lies in memory
)

// inflate makes the bytes of a deflated data set. What grows beyond the first bound must be a native image of the size that its
// own header declares: a small file that unfolds to gigabytes of anything else is refused.
func inflate(deflated []byte) ([]byte, error) {
	r := flate.NewReader(bytes.NewReader(deflated))
	defer r.Close()
	var out bytes.Buffer
	limit := int64(baseInflation + sizeInflation*len(deflated))
	n, err := io.CopyN(&out, r, limit)
	if err == io.EOF {
		return out.Bytes(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w DICOM: the deflated data set breaks off after %d bytes: %v", pipeline.ErrInvalid, n, err)
	}
	total, ok := declared(out.Bytes())
	if ok && total > maxInflated {
		return nil, fmt.Errorf("%w DICOM: the deflated data set unfolds to %d bytes, and at most %d are read", pipeline.ErrInvalid, total, maxInflated)
	}
	if !ok {
		return nil, fmt.Errorf("%w DICOM: the deflated data set of %d bytes unfolds to more than %d bytes, which its header does not account for", pipeline.ErrInvalid, len(deflated), limit)
	}
	out.Grow(int(max(0, total-limit)) + bytes.MinRead)
	more, err := io.CopyN(&out, r, total+1<<20-limit)
	if err != io.EOF {
		return nil, fmt.Errorf("%w DICOM: the deflated data set unfolds to more than the %d bytes that its header declares, or breaks off: %v", pipeline.ErrInvalid, limit+more, err)
	}
	return out.Bytes(), nil
}

// declared finds Pixel Data in the beginning of an explicit VR little endian data set and tells where it will end, if that agrees
// with the image attributes before it.
func declared(begin []byte) (int64, bool) {
	w := newWalker(memory(begin), true)
	var ds pipeline.Dataset
	s := scope{}
	for off, end := int64(0), int64(len(begin)); off < end; {
		h, err := w.head(off, end, s.enc)
		if err != nil {
			return 0, false
		}
		if h.tag == pipeline.TagPixelData && h.length != undefined {
			m, err := newLayout(ds)
			want := m.frameBytes() * int64(m.frames)
			return h.value + int64(h.length), err == nil && int64(h.length) <= want+1024
		}
		e, next, _, err := w.element(h, end, &s)
		if err != nil {
			return 0, false
		}
		if h.tag.Group() == 0x0028 && w.spend(off, elementCost) == nil {
			ds.Set(e)
		}
		off = next
	}
	return 0, false
}
