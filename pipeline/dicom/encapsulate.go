package dicom

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strconv"

	"chatxray/pipeline"
)

// encodePixels writes the Pixel Data element of a data set, compressed where the syntax wants it, and returns the data set with
// the attributes that compression changes.
func encodePixels(ctx context.Context, ds pipeline.Dataset, e pipeline.Element, s *syntax) (pipeline.Dataset, []byte, error) {
	if e.VR != "OB" && e.VR != "OW" {
		return nil, nil, fmt.Errorf("%w DICOM: Pixel Data has the value representation %s in place of OB or OW", pipeline.ErrInvalid, e.VR)
	}
	if !s.Encapsulated {
		return ds, nativeElement(e, s.enc), nil
	}
	l, err := newLayout(ds)
	if err != nil {
		return nil, nil, err
	}
	size := l.frameBytes()
	if l.allocated == 1 || l.storedBits() != 8*size || l.samples > 1 && l.photometric != "RGB" {
		return nil, nil, fmt.Errorf("%w image: %d bits allocated, %s; that is not compressed here", pipeline.ErrUnsupported, l.allocated, l.photometric)
	}
	if int64(len(e.Bytes)) < size*int64(l.frames) {
		return nil, nil, fmt.Errorf("%w image: Pixel Data has %d bytes, %d frames need %d", pipeline.ErrInvalid, len(e.Bytes), l.frames, size*int64(l.frames))
	}
	var streams [][]byte
	total := 0
	for f := range l.frames {
		b, err := s.encode(ctx, l.pixels(e.Bytes[int64(f)*size:int64(f+1)*size]).interleaved())
		if err != nil {
			return nil, nil, fmt.Errorf("frame %d (%s): %w", f+1, s.Name, err)
		}
		if len(b)%2 == 1 {
			b = append(b, 0)
		}
		total += len(b) + itemHeaderLength
		streams = append(streams, b)
	}
	ds = append(pipeline.Dataset(nil), ds...)
	if l.samples > 1 {
		ds.SetInts(pipeline.TagPlanarConfiguration, "US", 0)
	}
	if s.lossy != "" {
		ratio := float64(size*int64(l.frames)) / float64(total)
		ds.SetText(pipeline.TagLossyImageCompression, "CS", "01")
		ds.SetText(pipeline.TagLossyImageCompressionRatio, "DS", strconv.FormatFloat(ratio, 'f', 2, 64))
		ds.SetText(pipeline.TagLossyImageCompressionMethod, "CS", s.lossy)
	}
	return ds, encapsulatedElement(streams, total), nil
}

// interleaved returns the frame with its samples side by side, as encoders want them.
func (p *Pixels) interleaved() *Pixels {
	if p.PlanarConfiguration == 0 || p.SamplesPerPixel == 1 {
		return p
	}
	n, plane := p.BitsAllocated/8, p.Rows*p.Columns
	out := *p
	out.PlanarConfiguration, out.Data = 0, make([]byte, len(p.Data))
	for i := range plane {
		for s := range p.SamplesPerPixel {
			copy(out.Data[(i*p.SamplesPerPixel+s)*n:][:n], p.Data[(s*plane+i)*n:])
		}
	}
	return &out
}

// wholeWords returns the frame with bits that mean nothing in its 16-bit words set as encoders want them: zero, or the sign. Where
// samples do not begin at bit 0, all bits up to High Bit count as stored.
func (p *Pixels) wholeWords() *Pixels {
	out := *p
	out.BitsStored = p.HighBit + 1
	if p.BitsAllocated != 16 || out.BitsStored == 16 {
		return &out
	}
	shift := 16 - out.BitsStored
	copied := false
	for i := 0; i+1 < len(p.Data); i += 2 {
		w := binary.LittleEndian.Uint16(out.Data[i:])
		right := w << shift >> shift
		if p.Signed {
			right = uint16(int16(w<<shift) >> shift)
		}
		if right == w {
			continue
		}
		if !copied { // Data may be a part of the file in memory
			out.Data, copied = bytes.Clone(p.Data), true
		}
		binary.LittleEndian.PutUint16(out.Data[i:], right)
	}
	return &out
}

// nativeElement writes the element of uncompressed pixels. The bytes of OW words are swapped in big endian; implicit VR is OW.
func nativeElement(e pipeline.Element, enc coding) []byte {
	b := e.Bytes
	if len(b)%2 == 1 {
		b = append(bytes.Clone(b), 0)
	}
	order := enc.order()
	out := make([]byte, 4, len(b)+12)
	order.PutUint16(out, pipeline.TagPixelData.Group())
	order.PutUint16(out[2:], pipeline.TagPixelData.Element())
	if !enc.implicit {
		out = append(out, e.VR[0], e.VR[1], 0, 0)
	}
	var length [4]byte
	order.PutUint32(length[:], uint32(len(b)))
	out = append(out, length[:]...)
	if enc.big && e.VR == "OW" {
		b = swapped(b, 2)
	}
	return append(out, b...)
}

// encapsulatedElement writes one fragment a frame behind a Basic Offset Table, which stays empty where the offsets do not fit
// (PS3.5 annex A.4).
func encapsulatedElement(streams [][]byte, total int) []byte {
	le := binary.LittleEndian
	item := func(out []byte, t pipeline.Tag, length int) []byte {
		out = le.AppendUint16(out, t.Group())
		out = le.AppendUint16(out, t.Element())
		return le.AppendUint32(out, uint32(length))
	}
	out := make([]byte, 0, total+32+4*len(streams))
	out = append(out, 0xE0, 0x7F, 0x10, 0x00, 'O', 'B', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF)
	if int64(total) < undefined {
		out = item(out, tagItem, 4*len(streams))
		off := 0
		for _, s := range streams {
			out = le.AppendUint32(out, uint32(off))
			off += len(s) + itemHeaderLength
		}
	} else {
		out = item(out, tagItem, 0)
	}
	for _, s := range streams {
		out = append(item(out, tagItem, len(s)), s...)
	}
	return item(out, tagSequenceEnd, 0)
}
