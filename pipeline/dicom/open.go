package dicom

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"runtime"

	"chatxray/pipeline"
)

// Open checks a whole DICOM file in memory and parses its header. The Instance keeps data and shares memory with it: the caller
// must not change it afterwards. Errors wrap pipeline.ErrInvalid (breaks the standard or our limits), ErrUnknown (a transfer
// syntax that is not of the standard) or ErrNotImage (a DICOMDIR, which is no object).
func Open(data []byte) (*pipeline.Instance, error) {
	in, err := Peek(data)
	if err != nil {
		return nil, err
	}
	in.Digest = sha256.Sum256(data)
	return in, nil
}

// Peek does what Open does for an object that is looked at or sent on, but neither stored nor read for a report: the Instance has no
// Digest, which is most of what Open takes.
func Peek(data []byte) (*pipeline.Instance, error) {
	in, err := inMemory(data)
	if err != nil {
		return nil, err
	}
	if err := identified(in); err != nil {
		return nil, err
	}
	return in, nil
}

// OpenAnonymous does what Open does for an object that need not say which object it is: the Instance's UIDs are empty where the
// object's are missing or wrong. It can be decoded and looked at; it must not be stored, read for a report or sent.
func OpenAnonymous(data []byte) (*pipeline.Instance, error) {
	in, err := inMemory(data)
	if err != nil {
		return nil, err
	}
	in.Digest = sha256.Sum256(data)
	return in, nil
}

func inMemory(data []byte) (*pipeline.Instance, error) {
	f, err := walk(memory(data), true)
	if err != nil {
		return nil, err
	}
	in := f.instance()
	in.Data = data
	return in, nil
}

// OpenFile does what Open does for a file on disk. It reads the file once for its digest and then only the header: the Instance
// keeps the path and the header, not the bytes. An error of the file system is returned as it is.
func OpenFile(path string) (*pipeline.Instance, error) { return openFile(path, OpenAt) }

// OpenHeader does what OpenFile does but reads the header only: the Instance has no Digest.
func OpenHeader(path string) (*pipeline.Instance, error) { return openFile(path, headerAt) }

func openFile(path string, at func(io.ReaderAt, int64) (*pipeline.Instance, error)) (*pipeline.Instance, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is no regular file", pipeline.ErrInvalid, path)
	}
	in, err := at(f, st.Size())
	if err != nil {
		return nil, err
	}
	in.Path = path
	return in, nil
}

// OpenAt does what OpenFile does for size bytes of r. The Instance has neither Path nor Data: the caller says where the bytes are.
func OpenAt(r io.ReaderAt, size int64) (*pipeline.Instance, error) {
	src := reader(r, size)
	in, err := headerOf(src)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	if n, err := io.CopyBuffer(h, io.NewSectionReader(r, 0, size), src.window[:cap(src.window)]); err != nil || n != size {
		return nil, fmt.Errorf("%d of %d bytes could be read: %w", n, size, firstError(err, pipeline.ErrInvalid))
	}
	h.Sum(in.Digest[:0])
	return in, nil
}

func headerAt(r io.ReaderAt, size int64) (*pipeline.Instance, error) {
	return headerOf(reader(r, size))
}

func headerOf(src *source) (*pipeline.Instance, error) {
	f, err := walk(src, true)
	if err != nil {
		return nil, err
	}
	in := f.instance()
	if err := identified(in); err != nil {
		return nil, err
	}
	return in, nil
}

// walked is a file that passed the walker.
type walked struct {
	syntax *syntax
	src    *source // holds the data set; not the file where that is deflated
	pixels pixelData
	header pipeline.Dataset // where it was kept
	left   []pipeline.Bulk  // the same
	places []int64          // in src, one for each of left
	begin  int64            // of the data set in src
	meta   pipeline.Dataset
	weight int64 // bytes of memory that it takes
}

// walks bounds how many files are gone through at the same time: what hostile ones take meanwhile adds up.
var walks = make(chan struct{}, max(4, runtime.GOMAXPROCS(0)))

// walk goes through a file. With keep it makes the header, without it only finds the pixels.
func walk(src *source, keep bool) (*walked, error) {
	walks <- struct{}{}
	defer func() { <-walks }()
	meta, off, err := readMeta(src)
	if err != nil {
		return nil, err
	}
	uid := meta.String(pipeline.TagTransferSyntaxUID)
	if !pipeline.ValidUID(uid) {
		return nil, fmt.Errorf("%w DICOM: the file meta information has no valid Transfer Syntax UID (0002,0010)", pipeline.ErrInvalid)
	}
	if meta.String(pipeline.TagMediaStorageSOPClassUID) == mediaStorageDirectory {
		return nil, fmt.Errorf("%w: the file is a DICOMDIR, a directory of other files; give those", pipeline.ErrNotImage)
	}
	f := &walked{src: src}
	if f.syntax, err = lookupSyntax(uid); err != nil {
		return nil, err
	}
	if f.syntax.deflate {
		deflated, err := src.take(off, src.size-off)
		if err != nil {
			return nil, err
		}
		set, err := inflate(deflated)
		if err != nil {
			return nil, err
		}
		f.src, off, f.weight = memory(set), 0, int64(cap(set))
	}
	f.begin, f.meta = off, meta
	w := newWalker(f.src, keep)
	ds, _, err := w.dataset(off, f.src.size, false, scope{enc: f.syntax.enc})
	if err != nil {
		return nil, err
	}
	f.pixels, f.left, f.places = w.pixels, w.left, w.places
	f.weight += budgetOf(f.src) - w.budget
	if err := f.check(); err != nil || !keep {
		return f, err
	}
	if f.syntax.deflate { // the inflated bytes must not live as long as the header
		detach(ds)
	}
	f.header = ds
	return f, nil
}

// mediaStorageDirectory is the SOP class of a DICOMDIR (PS3.4 annex B).
const mediaStorageDirectory = "1.2.840.10008.1.3.10"

// check compares where the pixels are with what the transfer syntax wants.
func (f *walked) check() error {
	switch p := f.pixels; {
	case p.tag != pipeline.TagPixelData:
		return nil
	case p.encap && !f.syntax.Encapsulated:
		return fmt.Errorf("%w DICOM: Pixel Data is fragmented, which the transfer syntax %s does not allow", pipeline.ErrInvalid, f.syntax.Name)
	case !p.encap && f.syntax.Encapsulated:
		return fmt.Errorf("%w DICOM: Pixel Data is not fragmented, as the transfer syntax %s demands", pipeline.ErrInvalid, f.syntax.Name)
	}
	return nil
}

// instance makes the Instance of a header. A UID that is none stays empty.
func (f *walked) instance() *pipeline.Instance {
	uid := func(t pipeline.Tag) string {
		if v := f.header.Strings(t); len(v) == 1 && pipeline.ValidUID(v[0]) {
			return v[0]
		}
		return ""
	}
	return &pipeline.Instance{
		StudyInstanceUID:  uid(pipeline.TagStudyInstanceUID),
		SeriesInstanceUID: uid(pipeline.TagSeriesInstanceUID),
		SOPInstanceUID:    uid(pipeline.TagSOPInstanceUID),
		SOPClassUID:       uid(pipeline.TagSOPClassUID),
		TransferSyntaxUID: f.syntax.UID,
		Header:            f.header,
	}
}

// identified demands the UIDs that every composite object has (PS3.3 sections C.7.2.1, C.7.3.1 and C.12.1).
func identified(in *pipeline.Instance) error {
	for _, u := range []struct {
		name string
		tag  pipeline.Tag
		uid  string
	}{
		{"Study Instance UID", pipeline.TagStudyInstanceUID, in.StudyInstanceUID},
		{"Series Instance UID", pipeline.TagSeriesInstanceUID, in.SeriesInstanceUID},
		{"SOP Instance UID", pipeline.TagSOPInstanceUID, in.SOPInstanceUID},
		{"SOP Class UID", pipeline.TagSOPClassUID, in.SOPClassUID},
	} {
		if u.uid == "" {
			return fmt.Errorf("%w DICOM: %s %v is missing or no UID (digits and dots, at most 64)", pipeline.ErrInvalid, u.name, u.tag)
		}
	}
	return nil
}

// detach copies the values that share memory with the bytes they were read from.
func detach(ds pipeline.Dataset) {
	for i := range ds {
		ds[i].Bytes = bytes.Clone(ds[i].Bytes)
		for _, item := range ds[i].Items {
			detach(item)
		}
	}
}
