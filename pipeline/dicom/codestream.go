package dicom

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"chatxray/pipeline"
)

// stream is what the header of a codestream says about its image.
type stream struct {
	rows, columns, samples, precision int
}

// fits compares a codestream with the object's header. A decoder allocates what the codestream says, so this comes first.
func (s stream) fits(l layout) error {
	if s.rows != l.rows || s.columns != l.columns || s.samples != l.samples {
		return fmt.Errorf("%w image: the codestream holds %d x %d x %d samples, the header says %d x %d x %d",
			pipeline.ErrInvalid, s.rows, s.columns, s.samples, l.rows, l.columns, l.samples)
	}
	if s.precision > l.allocated {
		return fmt.Errorf("%w image: the codestream holds samples of %d bits, the header allocates %d", pipeline.ErrInvalid, s.precision, l.allocated)
	}
	return nil
}

func badStream(format string, a ...any) error {
	return fmt.Errorf("%w codestream: %s", pipeline.ErrInvalid, fmt.Sprintf(format, a...))
}

// maxScans bounds the passes over an image that a progressive JPEG may ask for.
const maxScans = 64

// jpegStream reads the markers of a JPEG or JPEG-LS codestream (ISO 10918-1 annex B, ISO 14495-1 annex C) to its end. A stream that
// does not reach its EOI marker is refused as cut off.
func jpegStream(b []byte) (stream, error) {
	var s stream
	if len(b) < 4 || b[0] != 0xFF || b[1] != 0xD8 {
		return s, badStream("it does not begin as a JPEG (SOI marker)")
	}
	scans := 0
	for i := 2; i+1 < len(b); {
		if b[i] != 0xFF {
			return s, badStream("byte %d is no marker", i)
		}
		m := b[i+1]
		switch {
		case m == 0xFF: // fill byte
			i++
			continue
		case m == 0xD9:
			if scans == 0 || s.rows == 0 {
				return s, badStream("it ends without an image")
			}
			return s, nil
		case m == 0x01 || m >= 0xD0 && m <= 0xD7:
			i += 2
			continue
		}
		if i+4 > len(b) {
			break
		}
		n := int(binary.BigEndian.Uint16(b[i+2:]))
		if n < 2 || i+2+n > len(b) {
			return s, badStream("the segment of marker %02X at byte %d is longer than what is left", m, i)
		}
		segment := b[i+4 : i+2+n]
		i += 2 + n
		switch {
		case m >= 0xC0 && m <= 0xCF && m != 0xC4 && m != 0xC8 && m != 0xCC || m == 0xF7:
			if len(segment) < 6 || s.rows != 0 {
				return s, badStream("its frame header is short or comes twice")
			}
			s.precision = int(segment[0])
			s.rows, s.columns = int(binary.BigEndian.Uint16(segment[1:])), int(binary.BigEndian.Uint16(segment[3:]))
			s.samples = int(segment[5])
			if s.rows == 0 || s.columns == 0 || s.samples == 0 {
				return s, badStream("its frame header has no rows, columns or components")
			}
		case m == 0xDA:
			if scans++; scans > maxScans || s.rows == 0 {
				return s, badStream("it has more than %d scans, or one before the frame header", maxScans)
			}
			i = endOfScan(b, i)
		}
	}
	return s, badStream("it is cut off, there is no end marker")
}

// endOfScan finds the marker behind entropy-coded data: not a stuffed byte, not a restart.
func endOfScan(b []byte, i int) int {
	for i < len(b) {
		n := bytes.IndexByte(b[i:], 0xFF)
		if n < 0 || i+n+1 == len(b) {
			break
		}
		i += n
		if m := b[i+1]; m >= 0x80 && m != 0xFF && (m < 0xD0 || m > 0xD7) {
			return i
		}
		i++
	}
	return len(b)
}

// maxPackets bounds the packets of a JPEG 2000 codestream: decoders visit each of them, present or not.
const maxPackets = 1 << 20

// j2kSize is the SIZ marker segment (ISO 15444-1 section A.5.1).
type j2kSize struct {
	stream
	tileW, tileH, tilesX, tilesY int64
	layers                       int64 // of the last COD
}

// jpeg2000Stream reads the markers of a JPEG 2000 or HTJ2K codestream to its end: sizes, coding styles, and the chain of tile-parts,
// which must not be cut off.
func jpeg2000Stream(b []byte) (stream, error) {
	size, err := readSIZ(b)
	if err != nil {
		return stream{}, err
	}
	part := -1 // end of the tile-part whose header is being read
	for i := 2; i+4 <= len(b); {
		m, n := binary.BigEndian.Uint16(b[i:]), int(binary.BigEndian.Uint16(b[i+2:]))
		if m == 0xFF93 { // SOD: data to the end of the tile-part
			if part < i+2 {
				return stream{}, badStream("tile data without a tile header at byte %d", i)
			}
			i, part = part, -1
			if i == len(b) || i+2 <= len(b) && b[i] == 0xFF && b[i+1] == 0xD9 {
				return size.stream, nil
			}
			continue
		}
		if n < 2 || i+2+n > len(b) {
			return stream{}, badStream("the segment of marker %04X at byte %d is longer than what is left", m, i)
		}
		segment := b[i+4 : i+2+n]
		switch m {
		case 0xFF90: // SOT
			if len(segment) != 8 || part >= 0 {
				return stream{}, badStream("the tile header at byte %d is wrong", i)
			}
			length := int64(binary.BigEndian.Uint32(segment[2:]))
			if length == 0 { // to the end of the codestream
				length = int64(len(b) - i)
				if b[len(b)-2] == 0xFF && b[len(b)-1] == 0xD9 {
					length -= 2
				}
			}
			if length < 14 || length > int64(len(b)-i) {
				return stream{}, badStream("a tile-part claims %d bytes and %d are left; it is cut off", length, len(b)-i)
			}
			part = i + int(length)
		case 0xFF52: // COD
			if err := size.checkCoding(segment, true); err != nil {
				return stream{}, err
			}
		case 0xFF53: // COC
			if err := size.checkCoding(segment, false); err != nil {
				return stream{}, err
			}
		}
		i += 2 + n
	}
	return stream{}, badStream("it is cut off between tile-parts")
}

func readSIZ(b []byte) (j2kSize, error) {
	var s j2kSize
	if len(b) < 51 || binary.BigEndian.Uint32(b) != 0xFF4FFF51 {
		return s, badStream("it does not begin as JPEG 2000 (SOC and SIZ markers)")
	}
	at := func(i int) int64 { return int64(binary.BigEndian.Uint32(b[8+4*i:])) }
	w, h, x, y := at(0), at(1), at(2), at(3)
	s.samples = int(binary.BigEndian.Uint16(b[40:]))
	s.tileW, s.tileH = at(4), at(5)
	if x >= w || y >= h || w-x > 1<<16 || h-y > 1<<16 || s.tileW == 0 || s.tileH == 0 {
		return s, badStream("its image or tile size is wrong (%d x %d)", h-y, w-x)
	}
	s.rows, s.columns = int(h-y), int(w-x)
	s.tilesX, s.tilesY = (w-at(6)+s.tileW-1)/s.tileW, (h-at(7)+s.tileH-1)/s.tileH
	if s.tilesX < 1 || s.tilesY < 1 || s.tilesX*s.tilesY > 65535 || at(6) > x || at(7) > y {
		return s, badStream("it has %d x %d tiles", s.tilesX, s.tilesY)
	}
	if s.samples < 1 || s.samples > 4 || len(b) < 42+3*s.samples {
		return s, badStream("it has %d components", s.samples)
	}
	for c := range s.samples {
		q := b[42+3*c:]
		s.precision = max(s.precision, int(q[0]&0x7F)+1)
		if q[1] != 1 || q[2] != 1 {
			return s, fmt.Errorf("%w image: JPEG 2000 with subsampled components", pipeline.ErrUnsupported)
		}
	}
	return s, nil
}

// checkCoding bounds the work that a coding style asks for: a COD segment (ISO 15444-1 section A.6.1), or a COC segment for one
// component (A.6.2), which has no layers of its own.
func (s *j2kSize) checkCoding(segment []byte, cod bool) error {
	style, levelsAt := 0, 5
	if !cod {
		style, levelsAt = 1, 2
	}
	if len(segment) < levelsAt+5 {
		return badStream("its coding style is cut off")
	}
	if cod {
		s.layers = int64(binary.BigEndian.Uint16(segment[2:]))
	}
	levels, own, precincts := int(segment[levelsAt]), segment[style]&1 == 1, segment[levelsAt+5:]
	if levels > 32 || s.layers < 1 || own && len(precincts) < levels+1 {
		return badStream("its coding style has %d levels and %d layers", levels, s.layers)
	}
	var packets int64
	for r := 0; r <= levels; r++ {
		px, py := 15, 15
		if own {
			px, py = int(precincts[r]&15), int(precincts[r]>>4)
		}
		across := int64(s.columns)>>(levels-r)>>px + 1 + s.tilesX
		along := int64(s.rows)>>(levels-r)>>py + 1 + s.tilesY
		packets += across * along
	}
	if packets*s.layers*int64(s.samples) > maxPackets {
		return badStream("it has more than %d packets", maxPackets)
	}
	return nil
}
