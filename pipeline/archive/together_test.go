package archive_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// Processes come and go at the same time: none of them fails, and when all have stopped in order the archive says so.
func testComingAndGoing(t *testing.T) {
	dir := t.TempDir()
	opts := indexed(t, dir, archive.Options{Reserve: -1, Warn: func(what, path string, err error) { t.Error(what, path, err) }})
	clean := func(round int) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(dir, "clean")); err != nil {
			t.Errorf("round %d: all have stopped, and the archive is not said to be in order: %v", round, err)
		}
		if left, err := os.ReadDir(filepath.Join(dir, "incoming")); err != nil || len(left) != 1 { // turn
			t.Errorf("round %d: folders stay: %v %v", round, left, err)
		}
	}
	barrier := func(n int) func() {
		var all sync.WaitGroup
		all.Add(n)
		return func() { all.Done(); all.Wait() }
	}
	for round := range 40 {
		const processes = 3
		var all sync.WaitGroup
		start, stop := barrier(processes), barrier(processes)
		for range processes {
			all.Go(func() {
				visit := func(meanwhile func()) {
					a, err := archive.Open(dir, dicom.OpenFile, opts)
					meanwhile()
					if err == nil {
						err = a.Close()
					}
					if err != nil {
						t.Errorf("round %d: %v", round, err)
					}
				}
				start()
				if round%2 == 1 { // comes, goes, and comes again while others do
					visit(func() { time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond) })
				}
				visit(stop)
			})
		}
		all.Wait()
		if clean(round); t.Failed() {
			return
		}
	}
}

// While a process deletes something of a study no other one keeps anything of it: the lock is there before the first file goes.
func testHeldAcross(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, dir, archive.Options{}), open(t, dir, archive.Options{})
	release, err := a.Hold("1.2")
	if err != nil {
		t.Fatal(err)
	}
	file, kept := object(t, "1.2", "1.2.1", "1.2.1.1"), make(chan pipeline.Outcome, 1)
	s, err := b.Stage(t.Context(), bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	go func() { kept <- b.Commit(context.Background(), []*pipeline.Staged{s})[0] }()
	time.Sleep(300 * time.Millisecond) // for it to do wrong
	if files := under(t, filepath.Join(dir, "instances")); len(kept) > 0 || len(files) > 0 {
		t.Error("another process keeps an instance meanwhile:", files)
	}
	release()
	if o := <-kept; o.Err != nil {
		t.Error(o.Err)
	}
}
