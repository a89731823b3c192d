package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"chatxray/pipeline"
)

// processFiles are what a process has for itself in an archive. With an index in the folder that is the whole of incoming. Where several
// processes share the archive each has a folder in it:
//
//	DIR/lock               flock: shared by all of them; exclusive while the index is made anew, or with SQLite
//	DIR/incoming/turn      flock: held while a process makes its folder, or looks after those of others
//	DIR/incoming/P/lock    flock: held as long as process P lives
//	DIR/incoming/P/*.part  its uploads under way
//
// A process that stops in order takes its folder along. A folder that nobody has locked is of one that died: it is emptied, and stays until
// a process that is alone has looked for files without index entry.
type processFiles struct {
	folder string   // for uploads under way
	note   string   // name of the note about its deletion under way
	alive  *os.File // its lock; nil where the process has all of incoming
	alone  bool     // nobody else had the archive open when this process came
}

// entering is how long a process waits for others that hold the archive for a moment.
const entering = 10 * time.Second

// enter takes the archive's lock.
func (a *Archive) enter(exclusively bool) error {
	busy := fmt.Errorf("the archive in %s is open in another process; stop it, or use another folder: %w", a.dir, pipeline.ErrBusy)
	a.own = processFiles{folder: a.path(incomingDir), note: "one.json", alone: flock(a.lock, syscall.LOCK_EX) == nil}
	if a.own.alone && (exclusively || !a.index.shared()) {
		return nil
	}
	if exclusively || !a.index.shared() {
		return busy
	}
	for end := time.Now().Add(entering); flock(a.lock, syscall.LOCK_SH) != nil; {
		if time.Now().After(end) {
			return busy
		}
		time.Sleep(20 * time.Millisecond)
	}
	return a.makeFolder()
}

func flock(f *os.File, how int) error { return syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB) }

// turn keeps other processes from making their folders until it is closed.
func (a *Archive) turn() (*os.File, error) {
	f, err := os.OpenFile(a.path(incomingDir, "turn"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (a *Archive) makeFolder() error {
	turn, err := a.turn()
	if err == nil {
		defer turn.Close()
		host, _ := os.Hostname()
		a.own.folder, err = os.MkdirTemp(a.path(incomingDir), strings.ReplaceAll(host, "*", "")+"-*")
	}
	if err == nil {
		a.own.note = filepath.Base(a.own.folder) + ".json"
		a.own.alive, err = os.OpenFile(filepath.Join(a.own.folder, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	}
	if err == nil {
		err = flock(a.own.alive, syscall.LOCK_EX)
	}
	if err != nil {
		return fmt.Errorf("a folder for uploads cannot be made in %s: %w", a.path(incomingDir), full(err))
	}
	return nil
}

// tidy removes the uploads that processes left that live no more, and tells whether the last one stopped in order.
func (a *Archive) tidy(ctx context.Context) (orderly bool, err error) {
	_, err = os.Stat(a.path("clean"))
	if orderly = err == nil; orderly {
		if err := errors.Join(os.Remove(a.path("clean")), syncDir(a.dir)); err != nil {
			return false, err
		}
	}
	if !a.index.shared() {
		return orderly, a.sweep(func(path string, _ os.DirEntry) error { return a.drop(ctx, path) })
	}
	died := false
	err = a.sweep(func(path string, f os.DirEntry) error {
		switch {
		case !f.IsDir() && f.Name() != "turn" && a.own.alone: // of a time with an index in the folder
			return a.drop(ctx, path)
		case !f.IsDir() || a.living(path):
			return nil
		}
		died = true
		parts, err := os.ReadDir(path)
		for _, p := range parts {
			if p.Name() != "lock" {
				err = errors.Join(err, a.drop(ctx, filepath.Join(path, p.Name())))
			}
		}
		return err
	})
	if !a.own.alone { // whoever was alone has seen to it, and what died since is seen to when all have stopped
		return true, err
	}
	return orderly && !died, err
}

// tidied forgets the processes that died, once files without index entry have got one.
func (a *Archive) tidied() error {
	if !a.index.shared() || !a.own.alone {
		return nil
	}
	return a.sweep(func(path string, f os.DirEntry) error {
		if !f.IsDir() || a.living(path) {
			return nil
		}
		return os.RemoveAll(path)
	})
}

// living tells whether a folder of incoming is that of this process, or of another one that lives.
func (a *Archive) living(folder string) bool {
	if folder == a.own.folder {
		return true
	}
	f, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_RDWR, 0)
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	defer f.Close()
	return flock(f, syscall.LOCK_EX) != nil
}

// sweep calls f with everything in incoming, while no process comes.
func (a *Archive) sweep(f func(path string, entry os.DirEntry) error) error {
	if a.index.shared() {
		turn, err := a.turn()
		if err != nil {
			return err
		}
		defer turn.Close()
	}
	left, err := os.ReadDir(a.path(incomingDir))
	for _, e := range left {
		if e := f(a.path(incomingDir, e.Name()), e); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fmt.Errorf("unfinished uploads cannot be removed: %w", err)
	}
	return nil
}

// sameFolder refuses a folder without a file to an index with entries: a process that does not see the folder of the others would find nothing.
func (a *Archive) sameFolder(ctx context.Context) error {
	if !a.index.shared() || a.bucket != nil { // each process has a folder of its own where the files are in S3
		return nil
	}
	files, err := os.ReadDir(a.path(instancesDir))
	if err != nil || len(files) > 0 {
		return err
	}
	var entries bool
	if err := a.read.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM instance WHERE own = 0)").Scan(&entries); err != nil {
		return indexError(err)
	}
	if entries {
		return fmt.Errorf("%w: the index has instances and the folder %s has none: it is not the folder that the other processes share (data), or its disk is not mounted", pipeline.ErrInvalid, a.dir)
	}
	return nil
}

// last tells whether no other process has the archive open, and no file of it may lack an index entry.
func (a *Archive) last() bool {
	if !a.index.shared() {
		return true
	}
	if a.untidy.Load() || flock(a.lock, syscall.LOCK_EX) != nil {
		return false
	}
	tidy := true
	err := a.sweep(func(path string, f os.DirEntry) error {
		tidy = tidy && (!f.IsDir() || path == a.own.folder)
		return nil
	})
	return tidy && err == nil
}

// leave gives the archive's lock back, and takes the process's folder along unless its loss is a sign that others need.
func (a *Archive) leave() error {
	var err error
	if a.own.alive != nil {
		if !a.untidy.Load() {
			err = os.RemoveAll(a.own.folder)
		}
		err = errors.Join(err, a.own.alive.Close())
	}
	return errors.Join(err, a.lock.Close())
}

// hold keeps commits about a study from all processes until release is called.
func (a *Archive) hold(study string) (release func(), err error) {
	a.placing.Lock()
	if !a.index.shared() {
		return a.placing.Unlock, nil
	}
	ctx := context.Background()
	tx, err := a.begin(ctx)
	if err == nil {
		if err = a.index.lock(ctx, tx, study); err != nil {
			tx.Rollback()
		}
	}
	if err != nil {
		a.placing.Unlock()
		return nil, indexError(err)
	}
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		keepAlive(ctx, tx, ending)
	}()
	return func() {
		close(ending)
		<-ended
		tx.Rollback() // the lock ends with it, and it has written nothing
		a.placing.Unlock()
	}, nil
}

// keepAlive keeps a transaction that waits for files from being taken for one of a process that was stopped.
func keepAlive(ctx context.Context, tx writing, ending <-chan struct{}) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ending:
			return
		case <-tick.C:
			if err := errors.Join(tx.exec(ctx, "SELECT 1"), tx.flush(ctx)); err != nil {
				return
			}
		}
	}
}
