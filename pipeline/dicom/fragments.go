package dicom

import (
	"encoding/binary"
	"fmt"
	"slices"

	"chatxray/pipeline"
)

// frameFragments says which fragments hold a frame (from 0) of an encapsulated object of n frames. In this order: Extended Offset
// Table, Basic Offset Table, one fragment a frame, all fragments for the only frame. Where the tables are empty and neither rule
// fits, starts (positions of fragments that begin a codestream) decide if there are as many as frames.
func (p *pixelData) frameFragments(frame, n int, starts func() ([]int, error)) ([]span, error) {
	fr := p.fragments
	if len(fr) == 0 {
		return nil, fmt.Errorf("%w image: Pixel Data has no fragments", pipeline.ErrInvalid)
	}
	if n > len(fr) && len(p.extended) == 0 {
		return nil, fmt.Errorf("%w image: %d frames are declared and %d fragments are there", pipeline.ErrInvalid, n, len(fr))
	}
	if len(p.extended) > 0 {
		return p.byExtended(frame, n)
	}
	switch {
	case n == 1:
		return fr, nil
	case len(fr) == n:
		return fr[frame : frame+1], nil
	case len(p.table) > 0:
		return p.byTable(frame, n)
	}
	at, err := starts()
	if err != nil {
		return nil, err
	}
	if len(at) != n {
		return nil, fmt.Errorf("%w image: %d fragments for %d frames without an offset table; which belong together cannot be told", pipeline.ErrUnsupported, len(fr), n)
	}
	end := len(fr)
	if frame+1 < n {
		end = at[frame+1]
	}
	return fr[at[frame]:end], nil
}

// byTable follows the Basic Offset Table (PS3.5 annex A.4): offsets of the items that begin a frame, from the first fragment's item.
func (p *pixelData) byTable(frame, n int) ([]span, error) {
	if len(p.table) != 4*n {
		return nil, fmt.Errorf("%w image: the Basic Offset Table has %d bytes for %d frames", pipeline.ErrInvalid, len(p.table), n)
	}
	first, err := p.at(int64(binary.LittleEndian.Uint32(p.table[4*frame:])))
	if err != nil {
		return nil, err
	}
	end := len(p.fragments)
	if frame+1 < n {
		if end, err = p.at(int64(binary.LittleEndian.Uint32(p.table[4*frame+4:]))); err != nil {
			return nil, err
		}
	}
	if end <= first {
		return nil, fmt.Errorf("%w image: the Basic Offset Table does not ascend at frame %d", pipeline.ErrInvalid, frame+1)
	}
	return p.fragments[first:end], nil
}

// byExtended follows the Extended Offset Table (PS3.3 section C.7.6.3.1.8), in which every frame is one fragment.
func (p *pixelData) byExtended(frame, n int) ([]span, error) {
	if len(p.extended) != 8*n || len(p.extendedLengths) != 8*n {
		return nil, fmt.Errorf("%w image: the Extended Offset Table has %d bytes, its lengths %d, for %d frames", pipeline.ErrInvalid, len(p.extended), len(p.extendedLengths), n)
	}
	off := binary.LittleEndian.Uint64(p.extended[8*frame:])
	length := binary.LittleEndian.Uint64(p.extendedLengths[8*frame:])
	if off > 1<<62 {
		return nil, fmt.Errorf("%w image: the Extended Offset Table points out of the file at frame %d", pipeline.ErrInvalid, frame+1)
	}
	i, err := p.at(int64(off))
	if err != nil {
		return nil, err
	}
	f := p.fragments[i]
	if length > uint64(f.length) || length == 0 {
		return nil, fmt.Errorf("%w image: the Extended Offset Table gives %d bytes to frame %d, whose fragment has %d", pipeline.ErrInvalid, length, frame+1, f.length)
	}
	return []span{{f.off, int64(length)}}, nil
}

// at finds the fragment whose item begins at an offset from the first one's.
func (p *pixelData) at(off int64) (int, error) {
	i, ok := slices.BinarySearchFunc(p.fragments, p.first+off+itemHeaderLength, func(s span, at int64) int {
		return int(max(-1, min(1, s.off-at)))
	})
	if !ok {
		return 0, fmt.Errorf("%w image: the offset table points to byte %d of the fragments, where none begins", pipeline.ErrInvalid, off)
	}
	return i, nil
}
