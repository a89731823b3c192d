package dicom

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"chatxray/pipeline"
)

// Assemble writes a DICOM file of a data set and pixels that came beside it: as native words in one piece, in Explicit VR Little Endian, or
// as one codestream for each frame, in a syntax that encapsulates. lengths are those of pixels; without any, the file has none. ds is as
// Write wants it, without Pixel Data. Errors wrap pipeline.ErrInvalid, ErrUnsupported or ErrUnknown, or are those of w and pixels.
func Assemble(w io.Writer, ds pipeline.Dataset, syntaxUID string, pixels []io.Reader, lengths []int64) error {
	s, err := lookupSyntax(syntaxUID)
	switch {
	case err != nil:
		return err
	case !s.Encapsulated && s.UID != ExplicitVRLittleEndian:
		return fmt.Errorf("%w transfer syntax %s (%s): uncompressed objects are assembled in Explicit VR Little Endian", pipeline.ErrUnsupported, s.UID, s.Name)
	case s.Encapsulated && len(pixels) == 0:
		return fmt.Errorf("%w DICOM: the transfer syntax %s is for objects with Pixel Data", pipeline.ErrInvalid, s.Name)
	}
	vr := "OB"
	if len(pixels) > 0 {
		if vr, err = fitting(ds, s, lengths); err != nil {
			return err
		}
	}
	before, after, err := aroundPixels(ds)
	if err != nil {
		return err
	}
	var head bytes.Buffer
	if err := writeMeta(&head, ds, s); err != nil {
		return err
	}
	if err := writeElements(&head, before, coding{}); err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 128<<10)
	if _, err := out.Write(head.Bytes()); err != nil {
		return err
	}
	if len(pixels) > 0 {
		if err := copyPixelData(out, s.Encapsulated, vr, pixels, lengths); err != nil {
			return err
		}
	}
	if err := writeElements(out, after, coding{}); err != nil {
		return err
	}
	return out.Flush()
}

// fitting compares pixels with what the data set says about them, and chooses their VR.
func fitting(ds pipeline.Dataset, s *syntax, lengths []int64) (vr string, err error) {
	l, err := newLayout(ds)
	if err != nil {
		return "", err
	}
	if s.Encapsulated {
		if len(lengths) != l.frames {
			return "", fmt.Errorf("%w image: %d compressed frames came, the header says %d", pipeline.ErrInvalid, len(lengths), l.frames)
		}
		for _, n := range lengths {
			if n > 0xFFFFFFFD {
				return "", fmt.Errorf("%w image: a compressed frame of %d bytes", pipeline.ErrUnsupported, n)
			}
		}
		return "OB", nil
	}
	need := (l.storedBits()*int64(l.frames) + 7) / 8
	switch {
	case len(lengths) != 1:
		return "", fmt.Errorf("%w image: uncompressed pixels came in %d pieces in place of one", pipeline.ErrInvalid, len(lengths))
	case lengths[0] != need && lengths[0] != need+need%2:
		return "", fmt.Errorf("%w image: %d bytes of pixels came, %d frames of %d x %d need %d", pipeline.ErrInvalid, lengths[0], l.frames, l.rows, l.columns, need)
	case lengths[0] > 0xFFFFFFFE:
		return "", fmt.Errorf("%w image: %d bytes are more than an uncompressed object can hold", pipeline.ErrUnsupported, lengths[0])
	case l.allocated > 8:
		return "OW", nil
	}
	return "OB", nil
}

// copyPixelData writes the Pixel Data element.
func copyPixelData(out *bufio.Writer, encapsulated bool, vr string, pixels []io.Reader, lengths []int64) error {
	le := binary.LittleEndian
	length := uint32(undefined)
	if !encapsulated {
		length = uint32(lengths[0] + lengths[0]%2)
	}
	_, _ = out.Write(le.AppendUint32(append(appendTag(nil, pipeline.TagPixelData), vr[0], vr[1], 0, 0), length))
	if encapsulated { // an empty Basic Offset Table (PS3.5 annex A.4)
		_, _ = out.Write(append(appendTag(nil, tagItem), 0, 0, 0, 0))
	}
	for i, r := range pixels {
		if encapsulated {
			_, _ = out.Write(le.AppendUint32(appendTag(nil, tagItem), uint32(lengths[i]+lengths[i]%2)))
		}
		if n, err := io.Copy(out, r); err != nil || n != lengths[i] {
			return fmt.Errorf("%d of %d bytes of pixels: %w", n, lengths[i], firstError(err, pipeline.ErrInvalid))
		}
		if lengths[i]%2 == 1 {
			_ = out.WriteByte(0)
		}
	}
	if encapsulated {
		_, _ = out.Write(append(appendTag(nil, tagSequenceEnd), 0, 0, 0, 0))
	}
	return nil
}
