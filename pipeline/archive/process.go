package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"chatxray/pipeline"
)

// processFiles are what a process has for itself in an archive. With an index in the folder that is the whole of incoming. Where several
// processes share the archive each has a folder in it:
//
//	DIR/lock               flock: shared by all of them; exclusive while the index is made anew, or with SQLite
//	DIR/clean              whoever had the archive open last stopped in order, and no file lacks an index entry; gone while anybody has it open
//	DIR/incoming/turn      flock: held while a process comes, goes, or looks after what others have left
//	DIR/incoming/P/lock    flock: held as long as process P lives
//	DIR/incoming/P/*.part  its uploads under way
//
// A process that stops in order takes its folder along, and writes clean where no other folder is left: under the turn, so that of two that stop
// together the later one sees itself alone. A folder that nobody has locked is of one that died, or stopped where files may lack an index entry: it is emptied, and stays
// until a process that was alone when it came has compared the files with the index. While it stays nobody writes clean.
type processFiles struct {
	folder  string   // for uploads under way
	note    string   // name of the note about its deletion under way
	alive   *os.File // its lock; nil where the process has all of incoming
	alone   bool     // nobody else had the archive open when this process came
	orderly bool     // nor was anything left then that has to be put in order
	died    []string // folders of processes that were dead by then
}

// entering is how long a process waits for others that hold the archive for a moment.
const entering = 10 * time.Second

// enter takes the archive's lock and finds out how the archive was left.
func (a *Archive) enter(exclusively bool) error {
	a.own = processFiles{folder: a.path(incomingDir), note: "one.json", alone: true}
	a.uncompared.Store(true) // until it is known
	how, wait := syscall.LOCK_SH, entering
	if exclusively || !a.index.shared() {
		how, wait = syscall.LOCK_EX, 0
	}
	for end := time.Now().Add(wait); flock(a.lock, how) != nil; time.Sleep(20 * time.Millisecond) {
		if !time.Now().Before(end) {
			return fmt.Errorf("the archive in %s is open in another process; stop it, or use another folder: %w", a.dir, pipeline.ErrBusy)
		}
	}
	if exclusively {
		return nil
	}
	return a.arrive()
}

// arrive makes the process's folder and looks at those of others, in one turn: who comes later sees this one live, and no clean.
func (a *Archive) arrive() error {
	if a.index.shared() {
		turn, err := a.turn()
		if err != nil {
			return fmt.Errorf("the archive in %s cannot be entered: %w", a.dir, full(err))
		}
		defer turn.Close()
		if err := a.makeFolder(); err != nil {
			return fmt.Errorf("a folder for uploads cannot be made in %s: %w", a.path(incomingDir), full(err))
		}
		living, dead, err := a.others()
		if err != nil {
			return fmt.Errorf("the folders of other processes in %s cannot be looked at: %w", a.path(incomingDir), bare(err))
		}
		a.own.alone, a.own.died = len(living) == 0, dead
	}
	err := os.Remove(a.path("clean"))
	a.own.orderly = err == nil && len(a.own.died) == 0
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = syncDir(a.dir) // also what another process has removed and died
	}
	if err != nil {
		return fmt.Errorf("the note %s cannot be removed: %w", a.path("clean"), full(err))
	}
	a.uncompared.Store(a.own.alone && !a.own.orderly)
	return nil
}

func flock(f *os.File, how int) error { return syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB) }

// turn keeps other processes from coming and going until it is closed.
func (a *Archive) turn() (*os.File, error) {
	f, err := os.OpenFile(a.path(incomingDir, "turn"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := waitFor(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// waitFor locks a file as soon as nobody else has it locked.
func waitFor(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// makeFolder makes the folder of this process, whose turn it is.
func (a *Archive) makeFolder() (err error) {
	host, _ := os.Hostname()
	if a.own.folder, err = os.MkdirTemp(a.path(incomingDir), strings.ReplaceAll(host, "*", "")+"-*"); err != nil {
		return err
	}
	a.own.note = filepath.Base(a.own.folder) + ".json"
	if a.own.alive, err = os.OpenFile(filepath.Join(a.own.folder, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	return flock(a.own.alive, syscall.LOCK_EX)
}

// others are the folders of other processes; it must be this one's turn.
func (a *Archive) others() (living, dead []string, err error) {
	entries, err := os.ReadDir(a.path(incomingDir))
	for _, e := range entries {
		switch path := a.path(incomingDir, e.Name()); {
		case !e.IsDir() || path == a.own.folder:
		case a.living(path):
			living = append(living, path)
		default:
			dead = append(dead, path)
		}
	}
	return living, dead, err
}

// tidy removes the uploads that processes left that live no more.
func (a *Archive) tidy(ctx context.Context) error {
	if !a.index.shared() {
		return a.sweep(func(path string, _ os.DirEntry) error { return a.drop(ctx, path) })
	}
	return a.sweep(func(path string, f os.DirEntry) error {
		switch {
		case !f.IsDir() && f.Name() != "turn" && a.own.alone: // of a time with an index in the folder
			return a.drop(ctx, path)
		case !f.IsDir() || a.living(path):
			return nil
		}
		parts, err := os.ReadDir(path)
		for _, p := range parts {
			if p.Name() != "lock" {
				err = errors.Join(err, a.drop(ctx, filepath.Join(path, p.Name())))
			}
		}
		return err
	})
}

// tidied notes that every file that lacked an index entry when this process came has one. What died since is seen to when all have stopped.
func (a *Archive) tidied() error {
	a.uncompared.Store(false)
	if !a.own.alone || len(a.own.died) == 0 {
		return nil
	}
	turn, err := a.turn()
	if err != nil {
		return err
	}
	defer turn.Close()
	for _, folder := range a.own.died {
		err = errors.Join(err, os.RemoveAll(folder))
	}
	return err
}

// living tells whether a folder of incoming is that of this process, or of another one that lives. It must be this one's turn.
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

// leave gives the archive back, and takes the process's folder along unless others need it as a sign.
func (a *Archive) leave() error {
	err := a.depart()
	if a.own.alive != nil {
		err = errors.Join(err, a.own.alive.Close())
	}
	return errors.Join(err, a.lock.Close())
}

// depart leaves the archive as whoever comes next should find it: with clean where all is in order and nobody else has it open.
func (a *Archive) depart() error {
	inOrder := !a.untidy.Load() && !a.uncompared.Load()
	if a.index.shared() {
		if a.own.alive == nil {
			return nil
		}
		turn, err := a.turn()
		if err != nil {
			return err
		}
		defer turn.Close()
		living, dead, err := a.others()
		if err != nil || !inOrder && len(living) > 0 { // with nobody there, the lack of clean says enough
			return err
		}
		if err := os.RemoveAll(a.own.folder); err != nil {
			return err
		}
		inOrder = inOrder && len(living)+len(dead) == 0
	}
	if !inOrder {
		return nil
	}
	return writeDurably(a.path("clean"), nil)
}

// held keeps commits about a study from all processes until it is released.
type held struct {
	a             *Archive
	asking        sync.Mutex // tx
	tx            writing    // nil where no other process can write
	ending, ended chan struct{}
}

func (a *Archive) hold(study string) (*held, error) {
	a.placing.Lock()
	h := &held{a: a, ending: make(chan struct{}), ended: make(chan struct{})}
	if !a.index.shared() {
		return h, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tx, err := a.begin(ctx)
	if err == nil {
		err = a.index.lock(ctx, tx, study)
		if err == nil {
			err = tx.flush(ctx) // files are touched before anything is asked
		}
		if err != nil {
			tx.Rollback()
		}
	}
	if err != nil {
		a.placing.Unlock()
		return nil, indexError(err)
	}
	h.tx = tx
	go h.keepAlive()
	return h, nil
}

func (h *held) release() {
	if h.tx != nil {
		close(h.ending)
		<-h.ended
		h.tx.Rollback() // the lock ends with it, and it has written nothing
	}
	h.a.placing.Unlock()
}

// still tells whether commits are kept away: they are not where the connection has died.
func (h *held) still() error {
	if h.tx == nil {
		return nil
	}
	h.asking.Lock()
	defer h.asking.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return h.tx.script(ctx, "SELECT 1")
}

// keepAlive keeps a transaction that waits for files from being taken for one of a process that was stopped.
func (h *held) keepAlive() {
	defer close(h.ended)
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-h.ending:
			return
		case <-tick.C:
			if h.still() != nil {
				return
			}
		}
	}
}
