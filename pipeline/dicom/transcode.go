package dicom

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"

	"chatxray/pipeline"
)

// transcoded is an object on its way into another transfer syntax. Its first frame has been converted already, so that what cannot be
// done is known before a byte is written.
type transcoded struct {
	ctx    context.Context
	object *Object
	target *syntax
	first  []byte
	edits  pipeline.Dataset // attributes that compression or its end changes
	total  int64            // bytes of native pixels
}

// Transcode prepares an object for another transfer syntax: Explicit VR Little Endian or one that Syntaxes says we encode. An object
// without pixels stays uncompressed. Every attribute that the conversion does not concern keeps its bytes; values of implicit VR and
// big endian get the VR of the dictionary and little endian. actual is the syntax that the file will have; file uses o until it is
// written, and may be written again. Errors are those of Frame.
func (o *Object) Transcode(ctx context.Context, syntaxUID string) (file io.WriterTo, actual string, err error) {
	t, err := o.transcode(ctx, syntaxUID)
	if err != nil {
		return nil, "", err
	}
	return t, t.target.UID, nil
}

func (o *Object) transcode(ctx context.Context, syntaxUID string) (*transcoded, error) {
	target, err := encoderOf(syntaxUID)
	if err != nil {
		return nil, err
	}
	t := &transcoded{ctx: ctx, object: o, target: target}
	if p := o.walked.pixels; !p.encap && (p.tag != pipeline.TagPixelData || !target.Encapsulated) {
		t.target = syntaxes[ExplicitVRLittleEndian]
		return t, nil
	}
	f, err := o.open()
	if err != nil {
		return nil, err
	}
	return t, t.prepare(f)
}

// prepare converts the first frame and notes which attributes change with it.
func (t *transcoded) prepare(f *Frames) error {
	p, err := f.Frame(t.ctx, 0)
	if err != nil {
		return err
	}
	source := f.walked.syntax
	frameBytes := int64(len(p.Data))
	switch {
	case t.target.Encapsulated:
		if t.first, err = encodeFrame(t.ctx, f.layout, p, t.target); err != nil {
			return fmt.Errorf("frame 1: %w", err)
		}
		p.PlanarConfiguration = 0
	case f.layout.allocated == 1:
		t.first = packBits(p.Data)
	default:
		t.first = p.Data
	}
	t.total = frameBytes * int64(f.layout.frames)
	if f.layout.allocated == 1 {
		t.total = (f.layout.storedBits()*int64(f.layout.frames) + 7) / 8
	}
	if !t.target.Encapsulated && t.total > 0xFFFFFFFE {
		return fmt.Errorf("%w image: %d bytes are more than an uncompressed object can hold", pipeline.ErrUnsupported, t.total)
	}
	if p.SamplesPerPixel > 1 {
		t.edits.SetText(pipeline.TagPhotometricInterpretation, "CS", p.Photometric)
		t.edits.SetInts(pipeline.TagPlanarConfiguration, "US", int64(p.PlanarConfiguration))
	}
	switch {
	case t.target.lossy != "":
		ratio := strconv.FormatFloat(float64(len(p.Data))/float64(len(t.first)), 'f', 2, 64)
		t.edits.SetText(pipeline.TagLossyImageCompression, "CS", "01")
		t.edits.SetText(pipeline.TagLossyImageCompressionRatio, "DS", ratio)
		t.edits.SetText(pipeline.TagLossyImageCompressionMethod, "CS", t.target.lossy)
	case source.lossy != "": // PS3.3 section C.7.6.1.1.5: once lossy, always
		t.edits.SetText(pipeline.TagLossyImageCompression, "CS", "01")
	}
	return nil
}

// WriteTo writes the file. Frames are converted one after another; the error of one, or of w, ends it.
func (t *transcoded) WriteTo(w io.Writer) (int64, error) {
	c := &tally{w: w}
	out := bufio.NewWriterSize(c, 128<<10)
	f := t.object.walked
	var meta bytes.Buffer
	var named pipeline.Dataset
	for _, tag := range []pipeline.Tag{pipeline.TagSOPClassUID, pipeline.TagSOPInstanceUID} {
		named.SetText(tag, "UI", f.header.String(tag))
	}
	if err := writeMeta(&meta, named, t.target); err != nil {
		return 0, err
	}
	_, err := out.Write(meta.Bytes())
	if err == nil {
		r := recoder{w: newWalker(f.src, false), enc: f.syntax.enc, out: out, edits: t.edits, pixels: t.pixels, skip: t.skips}
		r.w.signed = signedPixels(f.header)
		err = r.top(f.begin)
	}
	if err == nil {
		err = out.Flush()
	}
	return c.n, err
}

func signedPixels(h pipeline.Dataset) bool {
	n, ok := h.Int(pipeline.TagPixelRepresentation)
	return ok && n == 1
}

// skips: offset tables lie once the fragments are others.
func (t *transcoded) skips(tag pipeline.Tag) bool {
	return tag == pipeline.TagExtendedOffsetTable || tag == pipeline.TagExtendedOffsetTableLengths
}

// pixels writes the Pixel Data element.
func (t *transcoded) pixels(out *bufio.Writer) error {
	p := t.object.walked.pixels
	f := t.object.frames
	if t.first == nil {
		return t.copyPixels(out, p)
	}
	le := binary.LittleEndian
	if t.target.Encapsulated { // the Basic Offset Table stays empty: lengths are known one by one (PS3.5 annex A.4)
		_, _ = out.Write([]byte{0xE0, 0x7F, 0x10, 0x00, 'O', 'B', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0xFF, 0x00, 0xE0, 0, 0, 0, 0})
	} else {
		vr := "OW"
		if f.layout.allocated <= 8 {
			vr = "OB"
		}
		_, _ = out.Write(le.AppendUint32(append([]byte{0xE0, 0x7F, 0x10, 0x00}, vr[0], vr[1], 0, 0), uint32(t.total+t.total&1)))
	}
	if f.layout.storedBits()%8 != 0 && !t.target.Encapsulated {
		return t.bitFrames(out, f)
	}
	for i := range f.Len() {
		b := t.first
		if i > 0 {
			var err error
			if b, _, err = t.object.Frame(t.ctx, i, t.target.UID); err != nil {
				return err
			}
			if !t.target.Encapsulated && len(b) != len(t.first) {
				return fmt.Errorf("%w image: frame %d has another size than the first", pipeline.ErrInvalid, i+1)
			}
		}
		if t.target.Encapsulated {
			_, _ = out.Write(le.AppendUint32([]byte{0xFE, 0xFF, 0x00, 0xE0}, uint32(len(b))))
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	if t.target.Encapsulated {
		_, err := out.Write([]byte{0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0})
		return err
	}
	if t.total%2 == 1 {
		return out.WriteByte(0)
	}
	return nil
}

// bitFrames writes frames of single bits, which follow one another without a gap (PS3.5 section 8.1.1).
func (t *transcoded) bitFrames(out *bufio.Writer, f *Frames) error {
	var rest []byte // one byte a sample, fewer than eight
	for i := range f.Len() {
		p, err := f.Frame(t.ctx, i)
		if err != nil {
			return err
		}
		bits := append(rest, p.Data...)
		whole := len(bits) / 8 * 8
		if _, err := out.Write(packBits(bits[:whole])); err != nil {
			return err
		}
		rest = append([]byte(nil), bits[whole:]...)
	}
	_, err := out.Write(packBits(rest))
	if t.total%2 == 1 {
		_, err = out.Write([]byte{0})
	}
	return err
}

// copyPixels writes uncompressed pixels as they are, in little endian.
func (t *transcoded) copyPixels(out *bufio.Writer, p pixelData) error {
	src := t.object.walked.src
	vr, size := p.vr, p.word
	if vr == "UN" {
		vr = "OW"
	}
	length := p.value.length
	_, _ = out.Write(binary.LittleEndian.AppendUint32(append(appendTag(nil, p.tag), vr[0], vr[1], 0, 0), uint32(length+length&1)))
	const step = 256 << 10 // a multiple of every word
	for at := int64(0); at < length; at += step {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		b, err := src.view(p.value.off+at, int(min(step, length-at)))
		if err != nil {
			return err
		}
		if t.object.walked.syntax.enc.big && size > 1 {
			b = swapped(b, size)
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	if length%2 == 1 {
		return out.WriteByte(0)
	}
	return nil
}

// tally counts what is written.
type tally struct {
	w io.Writer
	n int64
}

func (t *tally) Write(b []byte) (int, error) {
	n, err := t.w.Write(b)
	t.n += int64(n)
	return n, err
}
