package archive_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("ARCHIVE_CHILD"); dir != "" {
		if os.Getenv("ARCHIVE_DELETES") != "" {
			deletingChild(dir)
		}
		child(dir)
		return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		stopCluster()
		os.Exit(code)
	}))
}

// object is a small image of the synthetic patient. Each pair of edit is a tag and the text that it gets.
func object(t testing.TB, study, series, sop string, edit ...any) []byte {
	t.Helper()
	var d pipeline.Dataset
	d.SetText(pipeline.TagSOPClassUID, "UI", "1.2.840.10008.5.1.4.1.1.1.1")
	d.SetText(pipeline.TagSOPInstanceUID, "UI", sop)
	d.SetText(pipeline.TagStudyDate, "DA", "20260102")
	d.SetText(pipeline.TagStudyTime, "TM", "101530")
	d.SetText(pipeline.TagAccessionNumber, "SH", "A1")
	d.SetText(pipeline.TagModality, "CS", "DX")
	d.SetText(pipeline.TagPatientName, "PN", "Probe^Ada")
	d.SetText(pipeline.TagPatientID, "LO", "P1")
	d.SetText(pipeline.TagStudyInstanceUID, "UI", study)
	d.SetText(pipeline.TagSeriesInstanceUID, "UI", series)
	d.SetText(pipeline.TagSeriesNumber, "IS", "1")
	d.SetText(pipeline.TagInstanceNumber, "IS", "1")
	for i := 0; i < len(edit); i += 2 {
		tag := edit[i].(pipeline.Tag)
		e, _ := d.Get(tag)
		if e.VR == "" {
			e.VR = map[pipeline.Tag]string{pipeline.TagSpecificCharacterSet: "CS", pipeline.TagReferringPhysicianName: "PN",
				pipeline.TagPatientComments: "LT", pipeline.TagStudyDescription: "LO", pipeline.TagRequestedProcedurePriority: "SH"}[tag]
		}
		d.SetText(tag, e.VR, edit[i+1].(string))
	}
	b, err := dicom.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t testing.TB, dir string, opts archive.Options) *archive.Archive {
	t.Helper()
	a, err := archive.Open(dir, dicom.OpenFile, indexed(t, dir, opts))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// store stages and commits files in one request.
func store(t testing.TB, a *archive.Archive, files ...[]byte) []pipeline.Outcome {
	t.Helper()
	var staged []*pipeline.Staged
	for _, f := range files {
		s, err := a.Stage(context.Background(), bytes.NewReader(f))
		if err != nil {
			t.Fatal(err)
		}
		staged = append(staged, s)
	}
	return a.Commit(context.Background(), staged)
}

func mustStore(t testing.TB, a *archive.Archive, files ...[]byte) {
	t.Helper()
	for _, o := range store(t, a, files...) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
	}
}

// otherMeta is the same data set behind a File Meta Information that another sender wrote.
func otherMeta(b []byte) []byte {
	length := binary.LittleEndian.Uint32(b[140:])
	extra := append([]byte("\x02\x00\x16\x00AE\x08\x00"), "ELSEHERE"...) // Source Application Entity Title (0002,0016)
	out := bytes.Clone(b[:144+length])
	out = append(append(out, extra...), b[144+length:]...)
	binary.LittleEndian.PutUint32(out[140:], length+uint32(len(extra)))
	return out
}

func TestCommit(t *testing.T) { onEach(t, testCommit) }

func testCommit(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, archive.Options{})
	first := object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1")
	for _, c := range []struct {
		name      string
		file      []byte
		duplicate bool
		err       error
	}{
		{"new", first, false, nil},
		{"the same bytes", first, true, nil},
		{"the same data set from another sender", otherMeta(first), true, nil},
		{"the same UID with other content", object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1", pipeline.TagPatientID, "P2"), false, pipeline.ErrConflict},
		{"the same UID in another study", object(t, "1.2.2", "1.2.1.1", "1.2.1.1.1"), false, pipeline.ErrConflict},
		{"another instance", object(t, "1.2.1", "1.2.1.1", "1.2.1.1.2"), false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := store(t, a, c.file)[0]
			if !errors.Is(o.Err, c.err) || o.Duplicate != c.duplicate {
				t.Fatalf("duplicate %v, error %v", o.Duplicate, o.Err)
			}
			if c.err != nil {
				return
			}
			kept, err := os.ReadFile(o.Instance.Path)
			if err != nil {
				t.Fatal(err)
			}
			if !c.duplicate && !bytes.Equal(kept, c.file) {
				t.Error("the kept file is not the sent one")
			}
			if c.duplicate && !bytes.Equal(kept, first) {
				t.Error("a duplicate changed the kept file")
			}
		})
	}
	if left := uploads(t, dir); len(left) > 0 {
		t.Error("temporary files stay:", left)
	}
}

// TestCommitTwiceInOneRequest sends one UID twice in one request: with the same content, then with other content.
func TestCommitTwiceInOneRequest(t *testing.T) { onEach(t, testCommitTwiceInOneRequest) }

func testCommitTwiceInOneRequest(t *testing.T) {
	a := open(t, t.TempDir(), archive.Options{})
	one, other := object(t, "1.2", "1.2.3", "1.2.3.4"), object(t, "1.2", "1.2.3", "1.2.3.4", pipeline.TagPatientID, "P9")
	out := store(t, a, one, one, other)
	if out[0].Err != nil || out[0].Duplicate || out[1].Err != nil || !out[1].Duplicate || !errors.Is(out[2].Err, pipeline.ErrConflict) {
		t.Fatalf("%+v", out)
	}
}

func TestStageRefuses(t *testing.T) { onEach(t, testStageRefuses) }

func testStageRefuses(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, archive.Options{})
	whole := object(t, "1.2", "1.2.3", "1.2.3.4", pipeline.TagPatientComments, strings.Repeat("x", 5000))
	cut := errors.New("the line went dead")
	for _, c := range []struct {
		name string
		r    io.Reader
		err  error
	}{
		{"empty", strings.NewReader(""), pipeline.ErrInvalid},
		{"no DICOM", strings.NewReader("GIF89a" + strings.Repeat("-", 1000)), pipeline.ErrInvalid},
		{"cut off", bytes.NewReader(whole[:len(whole)-5]), pipeline.ErrInvalid},
		{"reading fails", io.MultiReader(bytes.NewReader(whole[:1000]), failing{cut}), cut},
		{"no Study Instance UID", bytes.NewReader(object(t, "", "1.2.3", "1.2.3.4")), pipeline.ErrInvalid},
		{"path in a UID", bytes.NewReader(bytes.ReplaceAll(whole, []byte("1.2.3\x00"), []byte("../../"))), pipeline.ErrInvalid},
		{"dots for a UID", bytes.NewReader(bytes.ReplaceAll(whole, []byte("1.2.3\x00"), []byte("..\x00\x00\x00\x00"))), pipeline.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := a.Stage(context.Background(), c.r)
			if !errors.Is(err, c.err) || s != nil {
				t.Fatal(s, err)
			}
			if strings.Contains(err.Error(), dir) {
				t.Error("the error tells the archive's folder:", err)
			}
		})
	}
	if left := uploads(t, dir); len(left) > 0 {
		t.Error("temporary files stay:", left)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestFullDisk(t *testing.T) { onEach(t, testFullDisk) }

func testFullDisk(t *testing.T) {
	dir := t.TempDir()
	free := int64(300 << 20)
	var mu sync.Mutex
	a := open(t, dir, archive.Options{FreeSpace: func(string) (int64, error) {
		mu.Lock()
		defer mu.Unlock()
		return free, nil
	}})
	if err := a.Room(10 << 20); err != nil {
		t.Fatal(err)
	}
	if err := a.Room(100 << 20); !errors.Is(err, pipeline.ErrFull) {
		t.Fatal(err)
	}
	mustStore(t, a, object(t, "1.2", "1.2.3", "1.2.3.4"))
	// Space runs out while a large upload comes in.
	big := io.MultiReader(io.LimitReader(zeros{}, 40<<20), readerFunc(func([]byte) (int, error) {
		t.Error("the upload was read to its end although the disk is full")
		return 0, io.EOF
	}))
	drain := readerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		free -= int64(len(p)) * 2
		return big.Read(p)
	})
	if _, err := a.Stage(context.Background(), drain); !errors.Is(err, pipeline.ErrFull) {
		t.Fatal(err)
	}
	if left := uploads(t, dir); len(left) > 0 {
		t.Error("temporary files stay:", left)
	}
	if got, err := a.Instances(context.Background(), "1.2", "", ""); err != nil || len(got) != 1 {
		t.Error("what was kept before is gone:", got, err)
	}
	// The reserve is for the documents about what was accepted.
	if err := put(a, pipeline.Document{Kind: pipeline.FindingsSR, StudyInstanceUID: "1.2", SeriesInstanceUID: "1.2.9",
		SOPInstanceUID: "1.2.9.1", SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", Bytes: object(t, "1.2", "1.2.9", "1.2.9.1")}); err != nil {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestOnlyOneProcess(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, archive.Options{})
	if _, err := archive.Open(dir, dicom.OpenFile, archive.Options{}); !errors.Is(err, pipeline.ErrBusy) {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if o := a.Commit(context.Background(), nil); len(o) != 0 {
		t.Fatal(o)
	}
	open(t, dir, archive.Options{})
}

func TestStudy(t *testing.T) { onEach(t, testStudy) }

func testStudy(t *testing.T) {
	ctx := context.Background()
	at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	a := open(t, dir, archive.Options{Now: func() time.Time { return at }})
	var told []string
	a.OnStored(func(uid string, news bool) { told = append(told, fmt.Sprint(uid, " ", news)) })
	if _, err := a.Study(ctx, "1.2.1"); !errors.Is(err, pipeline.ErrNotFound) {
		t.Fatal(err)
	}
	mustStore(t, a,
		object(t, "1.2.1", "1.2.1.2", "1.2.1.2.1", pipeline.TagSeriesNumber, "10", pipeline.TagInstanceNumber, "2"),
		object(t, "1.2.1", "1.2.1.2", "1.2.1.2.2", pipeline.TagSeriesNumber, "10", pipeline.TagInstanceNumber, "1"),
		object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1", pipeline.TagSeriesNumber, "9"))
	document := pipeline.Document{Kind: pipeline.FindingsSR, StudyInstanceUID: "1.2.1", SeriesInstanceUID: "1.2.1.9", SOPInstanceUID: "1.2.1.9.1",
		SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", Bytes: object(t, "1.2.1", "1.2.1.9", "1.2.1.9.1")}
	at = at.Add(time.Hour)
	for range 2 { // a retry writes it again
		if err := put(a, document); err != nil {
			t.Fatal(err)
		}
	}
	mustStore(t, a, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1", pipeline.TagSeriesNumber, "9")) // a duplicate is no news

	st, err := a.Study(ctx, "1.2.1")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, in := range st.Instances {
		got = append(got, in.SOPInstanceUID)
		if in.Header.String(pipeline.TagPatientID) != "P1" || in.Path == "" || in.TransferSyntaxUID != "1.2.840.10008.1.2.1" {
			t.Errorf("instance without its header or path: %+v", in)
		}
	}
	if diff := cmp.Diff([]string{"1.2.1.1.1", "1.2.1.2.2", "1.2.1.2.1"}, got); diff != "" {
		t.Error("order of the study, or a document in it:\n", diff)
	}
	received, err := a.Received(ctx)
	if diff := cmp.Diff(map[string]time.Time{"1.2.1": at.Add(-time.Hour)}, received, cmp.Comparer(time.Time.Equal)); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if diff := cmp.Diff([]string{"1.2.1 true", "1.2.1 false"}, told); diff != "" {
		t.Error("who is told of stored studies:\n", diff)
	}

	ref := pipeline.DocumentRef{Kind: document.Kind, SeriesInstanceUID: document.SeriesInstanceUID, SOPInstanceUID: document.SOPInstanceUID, SOPClassUID: document.SOPClassUID}
	back, err := a.Document(ctx, "1.2.1", ref)
	if diff := cmp.Diff(document, back); diff != "" || err != nil {
		t.Error(diff, err)
	}
	changed := document
	changed.Bytes = object(t, "1.2.1", "1.2.1.9", "1.2.1.9.1", pipeline.TagPatientID, "P7")
	if err := put(a, changed); err != nil {
		t.Error("an earlier attempt is in the way:", err)
	}
	if back, err = a.Document(ctx, "1.2.1", ref); err != nil || !bytes.Equal(back.Bytes, document.Bytes) {
		t.Error("the document of an earlier attempt did not stay", err)
	}
	changed.SOPInstanceUID = "1.2.1.9.2"
	other := document
	other.SOPInstanceUID, other.Bytes = "1.2.1.9.3", object(t, "1.2.1", "1.2.1.9", "1.2.1.9.3")
	if err := put(a, other, changed); !errors.Is(err, pipeline.ErrInvalid) {
		t.Error("a document whose bytes are another's was taken:", err)
	}
	ref.SOPInstanceUID = other.SOPInstanceUID
	if _, err := a.Document(ctx, "1.2.1", ref); !errors.Is(err, pipeline.ErrNotFound) {
		t.Error("the document beside a wrong one was kept without it:", err)
	}
	if err := put(a, other); err != nil {
		t.Error(err)
	}
	// What came from outside under the UID of a document is none of ours, in this study or in another.
	for i, foreign := range [][]byte{object(t, "1.2.1", "1.2.1.9", "1.2.1.9.5"), object(t, "1.2.2", "1.2.1.9", "1.2.1.9.6")} {
		mustStore(t, a, foreign)
		changed.SOPInstanceUID = fmt.Sprintf("1.2.1.9.%d", 5+i)
		changed.Bytes = object(t, "1.2.1", "1.2.1.9", changed.SOPInstanceUID, pipeline.TagPatientID, "P7")
		more := document
		more.SOPInstanceUID, more.Bytes = "1.2.1.9.4", object(t, "1.2.1", "1.2.1.9", "1.2.1.9.4")
		if err := put(a, more, changed); !errors.Is(err, pipeline.ErrConflict) || !strings.Contains(err.Error(), changed.SOPInstanceUID) {
			t.Errorf("a foreign object was taken for a document: %v", err)
		}
		ref.SOPInstanceUID = more.SOPInstanceUID
		if _, err := a.Document(ctx, "1.2.1", ref); !errors.Is(err, pipeline.ErrNotFound) {
			t.Error("the document beside it was kept without it:", err)
		}
		for path := range tree(t, dir) {
			if strings.Contains(path, more.SOPInstanceUID) {
				t.Error("a file of it is left:", path)
			}
		}
		if records, err := a.Records(ctx, "1.2.1"); err != nil || len(records) != 1 || len(records[0].Documents) != 1 {
			t.Errorf("%+v %v", records, err)
		}
	}
	// The PACS sends our document back.
	if o := store(t, a, otherMeta(document.Bytes))[0]; o.Err != nil || !o.Duplicate {
		t.Errorf("%+v", o)
	}
}

func TestDamagedFileIsNotRead(t *testing.T) { onEach(t, testDamagedFileIsNotRead) }

func testDamagedFileIsNotRead(t *testing.T) {
	a := open(t, t.TempDir(), archive.Options{})
	o := store(t, a, object(t, "1.2", "1.2.3", "1.2.3.4"))[0]
	b, _ := os.ReadFile(o.Instance.Path)
	b[len(b)-1] ^= 1
	if err := os.WriteFile(o.Instance.Path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Study(context.Background(), "1.2"); !errors.Is(err, pipeline.ErrInvalid) {
		t.Fatal(err)
	}
}

func TestManyAtOnce(t *testing.T) { onEach(t, testManyAtOnce) }

func testManyAtOnce(t *testing.T) {
	a := open(t, t.TempDir(), archive.Options{})
	const clients, each = 8, 5
	var work sync.WaitGroup
	for c := range clients {
		work.Go(func() {
			for i := range each {
				uid := fmt.Sprintf("1.2.%d.%d", c, i)
				f, same := object(t, "1.2", "1.2.3", uid), object(t, "1.2", "1.2.3", "1.2.99")
				var staged []*pipeline.Staged
				for _, b := range [][]byte{f, same} {
					s, err := a.Stage(context.Background(), bytes.NewReader(b))
					if err != nil {
						t.Error(err)
						return
					}
					staged = append(staged, s)
				}
				for _, o := range a.Commit(context.Background(), staged) {
					if o.Err != nil {
						t.Error(o.Err)
					}
				}
			}
		})
	}
	work.Wait()
	got, err := a.Instances(context.Background(), "1.2", "", "")
	if err != nil || len(got) != clients*each+1 {
		t.Fatalf("%d instances, %v", len(got), err)
	}
}

func TestDocumentOfNoRecord(t *testing.T) { onEach(t, testDocumentOfNoRecord) }

// A document that a crash left without its record gives way to that of the next reading: nobody has seen it.
func testDocumentOfNoRecord(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	doc := func(patient string) pipeline.Document {
		return pipeline.Document{StudyInstanceUID: "1.2", SeriesInstanceUID: "1.2.9", SOPInstanceUID: "1.2.9.1", SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1",
			Bytes: object(t, "1.2", "1.2.9", "1.2.9.1", pipeline.TagPatientID, patient)}
	}
	lost := filepath.Join(dir, "documents", "1.2", "1.2.9", "1.2.9.1.dcm") // the crash came before the index knew of it, and nothing has looked since
	err := os.MkdirAll(filepath.Dir(lost), 0o700)
	if err == nil {
		err = os.WriteFile(lost, doc("P1").Bytes, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	alone := func(patient string) {
		t.Helper()
		if _, err := a.Report(ctx, pipeline.Life{StudyInstanceUID: "1.2"}, "k", []pipeline.Document{doc(patient)}, func(*pipeline.Record) {}); err != nil {
			t.Fatal(err)
		}
		if back, err := a.Document(ctx, "1.2", pipeline.DocumentRef{SeriesInstanceUID: "1.2.9", SOPInstanceUID: "1.2.9.1"}); err != nil || !bytes.Equal(back.Bytes, doc(patient).Bytes) {
			t.Error("not the document of this reading:", err)
		}
	}
	alone("P2")
	alone("P3") // the record does not refer to it: the index learnt of it from its file
	if err := put(a, doc("P4")); err != nil {
		t.Fatal(err)
	}
	if found, err := a.Search(ctx, pipeline.Query{Level: pipeline.StudyLevel}); err != nil || len(found.Results) != 1 || found.Results[0].String(pipeline.TagPatientID) != "P1" {
		t.Errorf("the study has the attributes of a document: %+v %v", found, err)
	}

	if err := put(a, doc("P5")); err != nil {
		t.Fatal(err)
	}
	back, err := a.Document(ctx, "1.2", pipeline.DocumentRef{SeriesInstanceUID: "1.2.9", SOPInstanceUID: "1.2.9.1"})
	if err != nil || !bytes.Equal(back.Bytes, doc("P4").Bytes) {
		t.Error("a document that a record refers to was replaced:", err)
	}
	a.Close()
	if c, told := checked(t, dir); c.Whole != 2 || len(told) > 0 {
		t.Error(c, told)
	}
}

// put keeps documents with a record that refers to them.
func put(a *archive.Archive, docs ...pipeline.Document) error {
	_, err := a.Report(context.Background(), pipeline.Life{StudyInstanceUID: docs[0].StudyInstanceUID}, "put", docs, func(r *pipeline.Record) {
		r.Documents = nil
		for _, d := range docs {
			r.Documents = append(r.Documents, pipeline.DocumentRef{Kind: d.Kind, SeriesInstanceUID: d.SeriesInstanceUID, SOPInstanceUID: d.SOPInstanceUID, SOPClassUID: d.SOPClassUID})
		}
	})
	return err
}
