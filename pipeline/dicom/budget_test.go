package dicom_test

import (
	"bytes"
	"compress/flate"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// endless is a file that begins with some bytes and goes on with spaces. It counts who reads it at the same time.
type endless struct {
	begin   []byte
	readers *atomic.Int64
	most    *atomic.Int64
}

func (e endless) ReadAt(b []byte, off int64) (int, error) {
	if e.readers != nil {
		n := e.readers.Add(1)
		defer e.readers.Add(-1)
		for most := e.most.Load(); n > most && !e.most.CompareAndSwap(most, n); most = e.most.Load() {
		}
		time.Sleep(2 * time.Millisecond)
	}
	n := 0
	if off < int64(len(e.begin)) {
		n = copy(b, e.begin[off:])
	}
	for i := n; i < len(b); i++ {
		b[i] = ' '
	}
	return len(b), nil
}

// A large file is no licence for a large header: most of one are pixels.
func TestHeaderOfLargeFile(t *testing.T) {
	const length = 200 << 20
	begin := file(dicom.ExplicitVRLittleEndian, le(pipeline.TagPatientComments, "UT", length, nil))
	var err error
	took := allocated(func() { _, err = dicom.OpenAt(endless{begin: begin}, int64(len(begin))+length) })
	if !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), "larger in memory") || took > 64<<20 {
		t.Errorf("%d MB were allocated: %v", took>>20, err)
	}
}

// What deflates well becomes no more than a bound in memory, whatever its header says about an image.
func TestDeflatedToTheBound(t *testing.T) {
	const side = 12_000
	var set bytes.Buffer
	w, _ := flate.NewWriter(&set, flate.BestSpeed)
	for _, e := range [][]byte{short(pipeline.TagSamplesPerPixel, 1), text(pipeline.TagPhotometricInterpretation, "CS", "MONOCHROME2"),
		short(pipeline.TagRows, side), short(pipeline.TagColumns, side), short(pipeline.TagBitsAllocated, 16), short(pipeline.TagBitsStored, 16),
		le(pipeline.TagPixelData, "OW", 2*side*side, nil)} {
		_, _ = w.Write(e)
	}
	zeros := make([]byte, 1<<20)
	for left := 2 * side * side; left > 0; left -= len(zeros) {
		_, _ = w.Write(zeros[:min(left, len(zeros))])
	}
	w.Close()
	b := file(dicom.DeflatedExplicitVRLittleEndian, set.Bytes())
	var err error
	took := allocated(func() { _, err = dicom.Peek(b) })
	if !errors.Is(err, pipeline.ErrInvalid) || took > 96<<20 {
		t.Errorf("%d kB became %d MB: %v", len(b)>>10, took>>20, err)
	}
}

// Files are gone through a few at a time, however many come at once.
func TestFilesAtATime(t *testing.T) {
	begin := object(dicom.ExplicitVRLittleEndian, nil)
	begin = begin[:len(begin)-2] // it is refused, so that nothing but the walk reads
	var readers, most atomic.Int64
	var work sync.WaitGroup
	for range 64 {
		work.Go(func() { _, _ = dicom.OpenAt(endless{begin, &readers, &most}, int64(len(begin))) })
	}
	work.Wait()
	if limit := int64(max(4, runtime.GOMAXPROCS(0))); most.Load() > limit {
		t.Errorf("%d were read at the same time", most.Load())
	}
}
