package dicom

import (
	"context"
	"encoding/binary"
	"fmt"

	"chatxray/pipeline"
)

// JPEG-LS is decoded by our own code: the codec module's CharLS was built with assertions that valid images of 16 bits trip over, and
// it leaves components that are not interleaved in planes. Section numbers are those of ISO 14495-1 (ITU-T T.87).

// decodeJPEGLS decodes all scans of a codestream to interleaved samples.
func decodeJPEGLS(_ context.Context, f encoded) (*Pixels, error) {
	l := f.layout
	h, err := jpegStream(f.data)
	if err = firstError(err, h.fits(l)); err != nil {
		return nil, err
	}
	if h.precision < 2 || h.precision > 16 || l.allocated != 8 && l.allocated != 16 {
		return nil, fmt.Errorf("%w image: JPEG-LS of %d bits in %d", pipeline.ErrUnsupported, h.precision, l.allocated)
	}
	// A run of a whole line takes at least a bit: what the codestream cannot hold is refused before it is made.
	if int64(l.rows) > 8*int64(len(f.data)) {
		return nil, badStream("%d bytes cannot hold %d rows", len(f.data), l.rows)
	}
	d := jlsDecoder{layout: l, in: f.data, precision: h.precision, out: make([]byte, l.frameBytes())}
	if err := d.run(); err != nil {
		return nil, err
	}
	l.planar = 0
	return l.pixels(d.out), nil
}

// jlsDecoder goes through the marker segments; jpegStream has checked their lengths.
type jlsDecoder struct {
	layout     layout
	in, out    []byte
	precision  int
	preset     [5]int // MAXVAL T1 T2 T3 RESET, 0 for the default
	components []byte // identifiers, in the order of the frame header
	done       int    // components
}

func (d *jlsDecoder) run() error {
	for i := 2; i+4 <= len(d.in); {
		m := d.in[i+1]
		if m == 0xFF {
			i++
			continue
		}
		if m == 0xD9 || d.done == d.layout.samples {
			break
		}
		n := int(binary.BigEndian.Uint16(d.in[i+2:]))
		segment := d.in[i+4 : i+2+n]
		i += 2 + n
		switch m {
		case 0xF7: // SOF55
			if len(segment) != 6+3*d.layout.samples {
				return badStream("its frame header has %d bytes", len(segment))
			}
			for c := range d.layout.samples {
				if segment[7+3*c] != 0x11 {
					return fmt.Errorf("%w image: JPEG-LS with subsampled components", pipeline.ErrUnsupported)
				}
				d.components = append(d.components, segment[6+3*c])
			}
		case 0xF8: // LSE
			if len(segment) != 11 || segment[0] != 1 {
				return fmt.Errorf("%w image: JPEG-LS with mapping tables or extended sizes", pipeline.ErrUnsupported)
			}
			for p := range d.preset {
				d.preset[p] = int(binary.BigEndian.Uint16(segment[1+2*p:]))
			}
		case 0xDD: // DRI
			return fmt.Errorf("%w image: JPEG-LS with restart intervals", pipeline.ErrUnsupported)
		case 0xE8: // APP8: a colour transform of HP's
			if len(segment) >= 5 && string(segment[:4]) == "mrfx" && segment[4] != 0 {
				return fmt.Errorf("%w image: JPEG-LS with a colour transform", pipeline.ErrUnsupported)
			}
		case 0xDA:
			next, err := d.scan(segment, i)
			if err != nil {
				return err
			}
			i = next
		}
	}
	if d.done != d.layout.samples {
		return badStream("it holds %d of %d components", d.done, d.layout.samples)
	}
	return nil
}

// scan decodes the scan whose header is segment and whose data begins at i.
func (d *jlsDecoder) scan(segment []byte, i int) (int, error) {
	if len(segment) < 1 || len(segment) != 4+2*int(segment[0]) || len(d.components) == 0 {
		return 0, badStream("a scan header has %d bytes", len(segment))
	}
	count, tail := int(segment[0]), segment[len(segment)-3:]
	near, interleave, first := int(tail[0]), tail[1], d.done
	for c := range count {
		if first+c >= len(d.components) || segment[1+2*c] != d.components[first+c] {
			return 0, badStream("a scan's components are not the next ones")
		}
		if segment[2+2*c] != 0 {
			return 0, fmt.Errorf("%w image: JPEG-LS with mapping tables", pipeline.ErrUnsupported)
		}
	}
	if tail[2] != 0 || interleave > 2 || interleave == 0 && count != 1 || count == 0 {
		return 0, badStream("a scan has interleave mode %d and %d components", interleave, count)
	}
	s, err := newJLSScan(d.precision, near, d.preset)
	if err != nil {
		return 0, err
	}
	s.bits = jlsBits{in: d.in, at: i}
	l, w := d.layout, d.layout.columns
	if interleave == 2 && count == 1 {
		interleave = 0
	}
	lines := make([]int32, 2*count*(w+2))
	line := func(y, c int) []int32 { return lines[((y&1)*count+c)*(w+2):][:w+2] }
	run := make([]int, count)
	above, here := make([][]int32, count), make([][]int32, count)
	for y := range l.rows {
		for c := range count {
			above[c], here[c] = line(y+1, c), line(y, c)
			above[c][w+1], here[c][0] = above[c][w], above[c][1]
		}
		if interleave == 2 {
			s.samples(above, here, &run[0])
		} else {
			for c := range count {
				s.line(above[c], here[c], &run[c])
			}
		}
		if s.bits.over {
			return 0, badStream("its data ends or breaks off in row %d of %d", y+1, l.rows)
		}
		for c := range count {
			d.store(here[c][1:w+1], y, first+c)
		}
	}
	d.done += count
	return s.bits.mark(), nil
}

// store writes a line of one component to its places.
func (d *jlsDecoder) store(line []int32, y, component int) {
	n := d.layout.samples
	at := y*d.layout.columns*n + component
	if d.layout.allocated == 8 {
		for _, v := range line {
			d.out[at] = byte(v)
			at += n
		}
		return
	}
	if n == 1 {
		out := d.out[2*at:][:2*len(line)]
		for x, v := range line {
			out[2*x], out[2*x+1] = byte(v), byte(v>>8)
		}
		return
	}
	for _, v := range line {
		binary.LittleEndian.PutUint16(d.out[2*at:], uint16(v))
		at += n
	}
}
