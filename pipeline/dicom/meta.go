package dicom

import (
	"fmt"

	"chatxray/pipeline"
)

const preamble = 128

// beforePart10 is how data sets of writers older than PS3.10 begin: without preamble and file meta information, in implicit VR
// little endian, with the length of group 0008. Other data sets without file meta information are refused, because their
// transfer syntax would be a guess.
const beforePart10 = "\x08\x00\x00\x00\x04\x00\x00\x00"

// readMeta reads the preamble and the file meta information (PS3.10 section 7.1). It returns group 0002 and where the data set
// begins.
func readMeta(src *source) (pipeline.Dataset, int64, error) {
	if src.size < preamble+4 {
		return nil, 0, fmt.Errorf("%w: a file of %d bytes is too short for DICOM", pipeline.ErrInvalid, src.size)
	}
	off := int64(preamble + 4)
	magic, err := src.view(preamble, 4)
	if err != nil {
		return nil, 0, err
	}
	if string(magic) != "DICM" {
		if begin, err := src.view(0, 8); err == nil && string(begin) == beforePart10 {
			var meta pipeline.Dataset
			meta.SetText(pipeline.TagTransferSyntaxUID, "UI", ImplicitVRLittleEndian)
			return meta, 0, nil
		}
		off = 0
		if begin, err := src.view(0, 6); err != nil || !metaWithoutPreamble(begin) {
			return nil, 0, fmt.Errorf("%w: not a DICOM file, it has no DICM at byte %d (PS3.10 section 7.1); a data set without file meta information is not read", pipeline.ErrInvalid, preamble)
		}
	}
	w := newWalker(src, true)
	s := scope{depth: 1} // no attribute here is pixels
	meta := make(pipeline.Dataset, 0, 8)
	end := int64(-1)
	for off < src.size && w.elements < 256 {
		if off == end && meta.String(pipeline.TagTransferSyntaxUID) == DeflatedExplicitVRLittleEndian {
			break // what follows is no element
		}
		h, err := w.head(off, src.size, s.enc)
		if h.tag.Group() != 2 && (err == nil || end < 0 || off == end) { // in implicit VR, or deflated, what follows is an error
			break
		}
		if err != nil {
			return nil, 0, err
		}
		e, next, bulk, err := w.element(h, src.size, &s)
		if err != nil {
			return nil, 0, err
		}
		if h.tag == pipeline.TagFileMetaInformationGroupLength && len(e.Ints) == 1 {
			end = next + e.Ints[0]
		}
		if !bulk {
			meta.Set(e)
		}
		w.elements++
		off = next
	}
	return meta, off, nil
}

// metaWithoutPreamble tells whether file meta information begins at once, as some toolkits write it.
func metaWithoutPreamble(begin []byte) bool {
	le := coding{}
	return le.tag(begin).Group() == 2 && vrOf(string(begin[4:6])).form != formNone
}
