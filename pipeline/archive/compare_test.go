package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// gate lets the comparison go on when it is opened.
type gate struct {
	open    chan struct{}
	reached atomic.Int64
	pause   time.Duration // of each file behind the gate
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

// opener stops at the files of the archive until the gate is opened.
func (g *gate) opener(path string) (*pipeline.Instance, error) {
	g.reached.Add(1)
	<-g.open
	time.Sleep(g.pause)
	return dicom.OpenFile(path)
}

// comparing opens an archive whose comparison is done by an opener of its own.
func comparing(t testing.TB, dir string, open archive.Opener, opts archive.Options) *archive.Archive {
	t.Helper()
	opts.Header = dicom.OpenHeader
	a, err := archive.Open(dir, open, indexed(t, dir, opts))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// orphan leaves a file in an archive as a crash does before its entry.
func orphan(t testing.TB, dir, tree, study, series, sop string) string {
	t.Helper()
	path := filepath.Join(dir, tree, study, series, sop+".dcm")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, object(t, study, series, sop), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// crashed takes the note away that the archive was left in order.
func crashed(t testing.TB, dir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, "clean")); err != nil {
		t.Fatal(err)
	}
}

func sops(t testing.TB, a *archive.Archive, study string) (out []string) {
	t.Helper()
	found, err := a.Instances(context.Background(), study, "", "")
	if err != nil && !errors.Is(err, pipeline.ErrNotFound) {
		t.Fatal(err)
	}
	for _, in := range found {
		out = append(out, in.SOPInstanceUID)
	}
	slices.Sort(out)
	return out
}

func document(t testing.TB, study, sop string) pipeline.Document {
	return pipeline.Document{StudyInstanceUID: study, SeriesInstanceUID: study + ".9", SOPInstanceUID: sop, SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1",
		Bytes: object(t, study, study+".9", sop)}
}

// A start after a crash does not wait for the comparison of the files with the index; what is done meanwhile counts, and what is found is looked at like
// what was stored.
func TestCompareBeside(t *testing.T) { onEach(t, testCompareBeside) }

func testCompareBeside(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	a := open(t, dir, archive.Options{})
	for _, study := range []string{"1.1", "1.2", "1.3"} {
		mustStore(t, a, object(t, study, study+".1", study+".1.1"))
		if err := a.Move(ctx, pipeline.Life{StudyInstanceUID: study}, pipeline.Change{At: time.Now(), State: pipeline.StateRefused}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	crashed(t, dir)
	orphan(t, dir, "instances", "1.1", "1.1.1", "1.1.1.2")            // of a study that was finished
	orphan(t, dir, "instances", "1.3", "1.3.1", "1.3.1.2")            // of one that is deleted meanwhile
	orphan(t, dir, "instances", "1.4", "1.4.1", "1.4.1.1")            // of a new one
	orphan(t, dir, "instances", "1.5", "1.5.1", "1.5.1.1")            // is sent again meanwhile
	away := orphan(t, dir, "instances", "1.6", "1.6.1", "1.6.1.1")    // goes meanwhile
	unread := orphan(t, dir, "documents", "1.2", "1.2.9", "1.2.9.1")  // of no record
	strange := filepath.Join(dir, "instances", "1.2", "1.2.1", "odd") // nobody's
	if err := os.WriteFile(strange, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	g := newGate()
	var mu sync.Mutex
	var warned, told, stored []string
	note := func(to *[]string, what string) {
		mu.Lock()
		defer mu.Unlock()
		*to = append(*to, what)
	}
	a = comparing(t, dir, g.opener, archive.Options{Warn: func(_, path string, err error) { note(&warned, path) },
		Comparing: func(done bool, files, entered int) { note(&told, fmt.Sprint(done, files, entered)) }})
	a.OnStored(func(study string, news bool) { note(&stored, fmt.Sprint(study, news)) })
	until(t, "a file without entry", func() bool { return g.reached.Load() > 0 })
	if got := sops(t, a, "1.2"); a.Compared() || len(got) != 1 {
		t.Error("it is over already:", got)
	}
	mustStore(t, a, object(t, "1.5", "1.5.1", "1.5.1.1"), object(t, "1.7", "1.7.1", "1.7.1.1"))
	if n, left, err := a.Delete(ctx, "1.3", "", ""); n != 1 || left || err != nil {
		t.Error(n, left, err)
	}
	if err := errors.Join(os.Remove(away), put(a, document(t, "1.2", "1.2.9.2"))); err != nil {
		t.Fatal(err)
	}
	other := object(t, "1.4", "1.4.1", "1.4.1.1", pipeline.TagPatientID, "P2")
	if o := store(t, a, other)[0]; !errors.Is(o.Err, pipeline.ErrBusy) {
		t.Error("other content than a file that has no entry yet:", o.Err)
	}
	close(g.open)
	compared(t, a)
	if o := store(t, a, other)[0]; !errors.Is(o.Err, pipeline.ErrConflict) {
		t.Error("other content than a file that has its entry now:", o.Err)
	}
	got := map[string][]string{}
	for n := 1; n <= 7; n++ {
		study := fmt.Sprint("1.", n)
		got[study] = sops(t, a, study)
	}
	if diff := cmp.Diff(map[string][]string{"1.1": {"1.1.1.1", "1.1.1.2"}, "1.2": {"1.2.1.1", "1.2.9.2"}, "1.3": nil, "1.4": {"1.4.1.1"}, "1.5": {"1.5.1.1"}, "1.6": nil, "1.7": {"1.7.1.1"}}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(unread); err == nil {
		t.Error("a document of no record stays")
	}
	for study, want := range map[string]pipeline.State{"1.1": pipeline.StateReceiving, "1.2": pipeline.StateRefused, "1.4": pipeline.StateReceiving} {
		if l, err := a.Life(ctx, study); err != nil || l.State != want || l.Open != (want == pipeline.StateReceiving) {
			t.Errorf("study %s: %+v %v", study, l, err)
		}
	}
	if n, err := a.Complete(ctx, time.Now(), 10, pipeline.Change{At: time.Now(), State: pipeline.StateComplete}); err != nil || n != 4 {
		t.Errorf("%d of 1.1, 1.4, 1.5 and 1.7 are complete, %v", n, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(warned)
	slices.Sort(stored)
	if diff := cmp.Diff([]string{unread, strange}, warned); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"1.1true", "1.4true", "1.5true", "1.7true"}, stored); diff != "" {
		t.Error(diff)
	}
	if len(told) != 2 || told[0] != "false 0 0" || !strings.HasPrefix(told[1], "true") || !strings.HasSuffix(told[1], " 2") {
		t.Errorf("%q", told)
	}
	if c, problems := checked(t, dir); c.Problems() != 1 { // strange
		t.Error(c, problems)
	}
	g2 := newGate()
	if comparing(t, dir, g2.opener, archive.Options{}); g2.reached.Load() != 0 {
		t.Error("files are opened at a start that is in order")
	}
}

// A process that stops in the middle of the comparison leaves that to the next one that is alone.
func TestCompareStopped(t *testing.T) { onEach(t, testCompareStopped) }

func testCompareStopped(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, dir, archive.Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.1", "1.1.1", "1.1.1.1"))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	crashed(t, dir)
	const many = 600
	for n := range many {
		orphan(t, dir, "instances", "1.2", "1.2.1", fmt.Sprint("1.2.1.", n+1))
	}
	in := func(a *archive.Archive) int { return len(sops(t, a, "1.2")) }
	clean := func() bool {
		_, err := os.Stat(filepath.Join(dir, "clean"))
		return err == nil
	}
	for range 2 {
		g := newGate()
		g.pause = 20 * time.Millisecond // so that there is much left when it has stopped
		a = comparing(t, dir, g.opener, archive.Options{})
		until(t, "a file without entry", func() bool { return g.reached.Load() > 0 })
		others := []*archive.Archive{}
		if onPostgres(t) {
			others = append(others, open(t, dir, archive.Options{}))
		}
		stopped := make(chan error)
		go func() { stopped <- a.Close() }()
		time.Sleep(100 * time.Millisecond)
		close(g.open)
		if err := <-stopped; err != nil {
			t.Fatal(err)
		}
		for _, a := range others { // not theirs to compare
			if !a.Compared() || in(a) != 0 {
				t.Error(a.Compared(), in(a))
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if clean() {
			t.Error("the archive is told to be in order")
		}
	}
	a = open(t, dir, archive.Options{Warn: func(what, path string, err error) { t.Error(what, path, err) }})
	compared(t, a)
	if n := in(a); n != many {
		t.Error(n, "have an entry")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if !clean() {
		t.Error("the archive is not told to be in order")
	}
}

// A document whose report is being committed is not taken for one that a crash has left, by this process or by another one.
func TestCompareReport(t *testing.T) { onEach(t, testCompareReport) }

func testCompareReport(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	crashed(t, dir)
	begin, listed, placed, commit := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	var armed atomic.Bool
	now := func() time.Time { // asked between the file's name and the end of the transaction
		if armed.CompareAndSwap(true, false) {
			close(placed)
			<-commit
		}
		return time.Now()
	}
	opts := archive.Options{Now: now, Warn: func(what, path string, err error) { t.Error(what, path, err) }}
	compares := opts
	compares.Comparing = func(done bool, _, _ int) {
		if !done {
			<-begin
		}
	}
	a = comparing(t, dir, func(path string) (*pipeline.Instance, error) {
		if strings.Contains(path, "/documents/") {
			close(listed)
		}
		return dicom.OpenFile(path)
	}, compares)
	reporter := a
	if onPostgres(t) {
		reporter = open(t, dir, opts)
	}
	doc := document(t, "1.2", "1.2.9.1")
	reported := make(chan error)
	go func() {
		_, err := reporter.Report(context.Background(), pipeline.Life{StudyInstanceUID: "1.2"}, "k", []pipeline.Document{doc}, func(r *pipeline.Record) {
			armed.Store(true)
			r.Documents = []pipeline.DocumentRef{{SeriesInstanceUID: doc.SeriesInstanceUID, SOPInstanceUID: doc.SOPInstanceUID, SOPClassUID: doc.SOPClassUID}}
		})
		reported <- err
	}()
	<-placed
	close(begin)
	<-listed
	time.Sleep(200 * time.Millisecond) // for the comparison to do wrong
	path := filepath.Join(dir, "documents", "1.2", "1.2.9", "1.2.9.1.dcm")
	if _, err := os.Stat(path); err != nil || a.Compared() {
		t.Error("the comparison does not wait for the report:", err)
	}
	close(commit)
	if err := <-reported; err != nil {
		t.Fatal(err)
	}
	compared(t, a)
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, doc.Bytes) {
		t.Error("the document of a report is gone:", err)
	}
	if diff := cmp.Diff([]string{"1.2.1.1", "1.2.9.1"}, sops(t, a, "1.2")); diff != "" {
		t.Error(diff)
	}
}

// Uploads, reports and deletions go on while many files get their entry.
func TestCompareUnderLoad(t *testing.T) { onEach(t, testCompareUnderLoad) }

func testCompareUnderLoad(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	a := open(t, dir, archive.Options{})
	const studies = 120
	name := func(n int) string { return fmt.Sprint("1.2.", n+1) }
	for n := range studies {
		mustStore(t, a, object(t, name(n), name(n)+".1", name(n)+".1.1"))
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	crashed(t, dir)
	for n := range studies {
		for i := range 3 {
			orphan(t, dir, "instances", name(n), name(n)+".1", fmt.Sprint(name(n), ".1.", i+2))
		}
		orphan(t, dir, "documents", name(n), name(n)+".9", name(n)+".9.1")
	}
	g := newGate()
	g.pause = 2 * time.Millisecond
	a = comparing(t, dir, g.opener, archive.Options{Warn: func(what, path string, err error) {
		if !strings.Contains(path, "/documents/") || !strings.HasSuffix(path, ".9.1.dcm") {
			t.Error(what, path, err)
		}
	}})
	all := []*archive.Archive{a, a}
	if onPostgres(t) {
		all[1] = open(t, dir, archive.Options{})
	}
	close(g.open)
	var work sync.WaitGroup
	for i := range 4 {
		work.Go(func() {
			for n := i; n < studies; n += 4 {
				at, study := all[n/4%2], name(n)
				switch n / 8 % 4 {
				case 0:
					if _, left, err := at.Delete(ctx, study, "", ""); left || err != nil {
						t.Error(left, err)
					}
				case 1: // an upload that was never answered is sent again, with another one
					for _, o := range store(t, at, object(t, study, study+".1", study+".1.2"), object(t, study, study+".1", study+".1.9")) {
						if o.Err != nil {
							t.Error(o.Err)
						}
					}
				case 2:
					if err := put(at, document(t, study, study+".9.2")); err != nil {
						t.Error(err)
					}
				case 3: // a report that was broken off is written anew
					if err := put(at, document(t, study, study+".9.1")); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	work.Wait()
	compared(t, a)
	for n := range studies {
		study := name(n)
		want := []string{study + ".1.1", study + ".1.2", study + ".1.3", study + ".1.4"}
		switch n / 8 % 4 {
		case 0:
			want = nil
			if left := under(t, filepath.Join(dir, "instances", study)); len(left) > 0 {
				t.Error("files of a deleted study:", left)
			}
		case 1:
			want = append(want, study+".1.9")
		case 2:
			want = append(want, study+".9.2")
		case 3:
			want = append(want, study+".9.1")
		}
		if diff := cmp.Diff(want, sops(t, a, study)); diff != "" {
			t.Error(study, diff)
		}
	}
	for _, a := range all {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if c, told := checked(t, dir); c.Problems() > 0 {
		t.Error(c, told)
	}
	if _, err := os.Stat(filepath.Join(dir, "clean")); err != nil {
		t.Error(err)
	}
}

// The comparison goes on when the index is back that was away.
func testComparisonWithoutIndex(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	crashed(t, dir)
	orphan(t, dir, "instances", "1.2", "1.2.1", "1.2.1.2")
	g := newGate()
	var refused atomic.Int64
	a = comparing(t, dir, g.opener, archive.Options{Warn: func(what, path string, err error) {
		if !errors.Is(err, pipeline.ErrBusy) {
			t.Error(what, path, err)
		}
		refused.Add(1)
	}})
	until(t, "a file without entry", func() bool { return g.reached.Load() > 0 })
	if err := server(t).Down("immediate"); err != nil {
		t.Fatal(err)
	}
	close(g.open)
	until(t, "a refusal", func() bool { return refused.Load() > 0 })
	if err := server(t).Up(); err != nil {
		t.Fatal(err)
	}
	compared(t, a)
	if got := sops(t, a, "1.2"); len(got) != 2 {
		t.Error(got)
	}
}

// An index that was lost is made anew before anybody uses it: one process does so, and another one that comes waits.
func TestLostIndexAwaited(t *testing.T) { onEach(t, testLostIndexAwaited) }

func testLostIndexAwaited(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	loseIndex(t, dir)
	g := newGate()
	came := make(chan *archive.Archive, 2)
	come := func() {
		opts := indexed(t, dir, archive.Options{Header: dicom.OpenHeader, Warn: func(string, string, error) {}})
		a, err := archive.Open(dir, g.opener, opts)
		if err != nil {
			t.Error(err)
		}
		came <- a
	}
	go come()
	until(t, "a file without entry", func() bool { return g.reached.Load() > 0 })
	wanted := 1
	if onPostgres(t) {
		wanted = 2
		go come()
		time.Sleep(300 * time.Millisecond)
	}
	if len(came) > 0 {
		t.Error("somebody is ready before the index is made")
	}
	close(g.open)
	var all []*archive.Archive
	for range wanted {
		a := <-came
		if a == nil {
			t.FailNow()
		}
		all = append(all, a)
		if got := sops(t, a, "1.2"); !a.Compared() || len(got) != 1 {
			t.Error(a.Compared(), got)
		}
	}
	if g.reached.Load() != 1 {
		t.Error("both have made it")
	}
	for _, a := range all {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "clean")); err != nil {
		t.Error(err)
	}

	// What was broken off is finished before anybody uses it.
	ctx, cancel := context.WithCancel(t.Context())
	_, err := archive.Rebuild(ctx, dir, func(path string) (*pipeline.Instance, error) {
		cancel()
		return dicom.OpenFile(path)
	}, indexed(t, dir, archive.Options{}))
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	a = open(t, dir, archive.Options{})
	if got := sops(t, a, "1.2"); !a.Compared() || len(got) != 1 {
		t.Error(a.Compared(), got)
	}
}
