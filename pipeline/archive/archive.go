// Package archive keeps instances, documents and records as files and finds them by an index, in SQLite beside them or in PostgreSQL. The files
// are the truth: the index is made anew from them whenever it is lost.
//
//	DIR/instances/STUDY/SERIES/SOP.dcm   received, byte for byte; SOP~2.dcm replaced it, where the configuration lets it
//	DIR/documents/STUDY/SERIES/SOP.dcm   written by this product
//	DIR/records/STUDY/KEY.json, KEY.png  what the line knows of a reading, what the model saw
//	DIR/deleting/                        deletions under way; finished at start
//	DIR/incoming/                        uploads under way; emptied at start
//	DIR/cache/                           files that are kept in S3 (objects.go): those that were read last
//	DIR/index.db                         SQLite, WAL
//	DIR/lock, DIR/clean                  one process at a time; the last one stopped in order
//
// With PostgreSQL several processes have it open, each with a folder of its own in incoming (process.go).
package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"chatxray/pipeline"
)

// Opener checks a DICOM file, parses its header and sums its bytes up (Instance.Digest). Its errors wrap the sentinels of pipeline; a
// missing file is fs.ErrNotExist.
type Opener func(path string) (*pipeline.Instance, error)

// Options of an archive. The zero value is usable.
type Options struct {
	Reserve   int64                                     // bytes of disk that stay free; 0 is DefaultReserve, below 0 none
	FreeSpace func(dir string) (int64, error)           // bytes free for us; nil asks the operating system
	Now       func() time.Time                          // nil is time.Now
	Warn      func(what string, path string, err error) // something at start needs a look; nil drops it. No patient data comes in.
	Replace   bool                                      // other content under a UID that is kept replaces it; else it is a conflict
	Header    Opener                                    // reads the header of a file without summing it up; nil takes the Opener
	Progress  func(instances int)                       // how many files Rebuild has entered so far; nil drops it
	Comparing func(done bool, files, entered int)       // the files are compared with the index beside the work: it begins, or is through; nil drops it
	Index     pipeline.Secret                           // URL of the PostgreSQL database that has the index; empty: SQLite in the folder

	Objects string // s3://BUCKET/PREFIX keeps the files there and not in the folder; see Config
	S3      S3
	Cache   int64 // bytes of them that stay on this disk, too
}

// DefaultReserve is the disk space that stays free, 256 MB.
const DefaultReserve = 256 << 20

// Archive is safe for concurrent use. Only one process has it open at a time, unless the index is shared.
type Archive struct {
	dir  string
	open Opener
	opts Options
	lock *os.File
	own  processFiles

	files    files
	bucket   *bucket // the same where files are kept in S3, else nil
	doubtful doubtful

	index       dialect
	read        database
	columns     columns
	loading     sync.WaitGroup // of columns, of sweep, and of the comparison after a crash
	stopLoading func()
	wide        chan struct{} // one for each search that goes over much of the index

	requests chan *request // to keep what is staged
	bookings chan *request // to do something else; the same channel where there is one transaction at a time
	placing  sync.RWMutex  // held for reading by commits: none goes on while something is deleted
	writing  sync.WaitGroup
	closing  sync.RWMutex // held for reading while a request is handed over
	closed   bool
	untidy   atomic.Bool // this process has left files that may lack an index entry

	uncompared atomic.Bool // others may have, and this process has not yet compared the files with the index

	hooks  sync.RWMutex
	stored []func(studyUID string, news bool)

	records sync.Mutex // one change of a record at a time
}

// Open opens the archive in dir and makes it where there is none. Leftovers of an earlier crash are put in order first: unfinished
// uploads go away, deletions are finished, and an index that was lost is made anew. Where it is there, files without an entry get one afterwards, beside the work. The error wraps pipeline.ErrBusy when another process has it open, or when the
// database of the index does not answer.
func Open(dir string, open Opener, opts Options) (*Archive, error) {
	a, err := prepare(dir, open, opts, false)
	if err != nil {
		return nil, err
	}
	if err := a.start(); err != nil {
		_ = a.leave()
		return nil, err
	}
	return a, nil
}

// prepare makes the folders and takes the lock; exclusively even where the index is shared.
func prepare(dir string, open Opener, opts Options, exclusively bool) (*Archive, error) {
	index, err := dialectOf(opts.Index)
	if err != nil {
		return nil, err
	}
	if opts.Reserve == 0 {
		opts.Reserve = DefaultReserve
	}
	if opts.FreeSpace == nil {
		opts.FreeSpace = freeSpace
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Warn == nil {
		opts.Warn = func(string, string, error) {}
	}
	for _, d := range []string{"", instancesDir, documentsDir, recordsDir, incomingDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("the archive's folder %s cannot be made: %w", filepath.Join(dir, d), full(err))
		}
	}
	for _, d := range []string{dir, filepath.Dir(filepath.Clean(dir))} {
		if err := syncDir(d); err != nil {
			return nil, fmt.Errorf("the archive's folder %s cannot be made durable: %w", d, full(err))
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the archive in %s cannot be locked: %w", dir, full(err))
	}
	a := &Archive{dir: dir, open: open, opts: opts, lock: lock, index: index, requests: make(chan *request), wide: make(chan struct{}, 2)}
	if a.bookings = a.requests; index.booking() > 0 {
		a.bookings = make(chan *request)
	}
	if err := a.enter(exclusively); err != nil {
		return nil, errors.Join(err, a.leave())
	}
	if err := a.openFiles(); err != nil {
		return nil, errors.Join(err, a.leave())
	}
	return a, nil
}

// Usable tells whether an archive can be opened in dir or be made there, and changes nothing: the folder, or the nearest one above it that
// there is, can be written, and the disk has more than the reserve free.
func Usable(dir string, opts Options) error {
	at, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	info, err := os.Stat(at)
	for errors.Is(err, os.ErrNotExist) && at != filepath.Dir(at) {
		at = filepath.Dir(at)
		info, err = os.Stat(at)
	}
	const writeAndSearch = 2 | 1 // W_OK, X_OK
	switch {
	case err != nil:
		return fmt.Errorf("the archive's folder %s cannot be looked at: %w", dir, bare(err))
	case !info.IsDir():
		return fmt.Errorf("%w: %s is no folder, so the archive cannot be in %s", pipeline.ErrInvalid, at, dir)
	case syscall.Access(at, writeAndSearch) != nil:
		return fmt.Errorf("%w: this user may not write in %s, where the archive %s is or would be", pipeline.ErrInvalid, at, dir)
	}
	if opts.Reserve == 0 {
		opts.Reserve = DefaultReserve
	}
	if opts.FreeSpace == nil {
		opts.FreeSpace = freeSpace
	}
	return (&Archive{dir: at, opts: opts}).Room(1)
}

// start opens the index, puts the leftovers of a crash in order and starts the writer.
func (a *Archive) start() error {
	fresh, err := a.index.open(a)
	if err != nil {
		return err
	}
	if err := a.putInOrder(context.Background(), fresh); err != nil {
		return errors.Join(err, a.closeIndex())
	}
	a.writing.Go(func() { a.writer(a.requests) })
	for range a.index.booking() {
		a.writing.Go(func() { a.writer(a.bookings) })
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.stopLoading = cancel
	if a.uncompared.Load() {
		a.loading.Go(func() { a.compareBeside(ctx) })
	}
	if a.bucket != nil {
		a.loading.Go(func() { a.collect(ctx) })
	}
	if !a.index.shared() {
		a.loading.Go(func() { _ = a.columns.follow(ctx, a.read.DB) }) // a search that finds them missing tries again, and tells why
	}
	return nil
}

// putInOrder takes care of what nobody may see after a crash; fresh: there was no index. Files without index entry are none of that: they are uploads that were never
// answered, and documents of reports that were not finished. They are looked for beside the work (compareBeside), unless the index itself was lost.
func (a *Archive) putInOrder(ctx context.Context, fresh bool) error {
	if err := errors.Join(a.matchKind(), a.sameFolder(ctx)); err != nil {
		return err
	}
	err := a.tidy(ctx)
	lost := fresh
	if err == nil && a.uncompared.Load() && !lost {
		lost, err = a.lacksAll(ctx)
	}
	switch {
	case err != nil:
		return err
	case a.rebuilding(), a.bucket == nil && lost:
		err = a.restore(ctx)
	case a.bucket != nil: // what is in the index is in S3, because it was there first; deletions are garbage
	default:
		if err = a.finishDeletions(ctx); err == nil && a.uncompared.Load() {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("putting the archive in order after a crash: %w", err)
	}
	return a.tidied()
}

// lacksAll tells whether the index has no instance at all.
func (a *Archive) lacksAll(ctx context.Context) (lacks bool, err error) {
	err = a.read.QueryRowContext(ctx, "SELECT NOT EXISTS (SELECT 1 FROM instance)").Scan(&lacks)
	return lacks, indexErrorOrNil(err)
}

// Close finishes the commits under way and closes the archive.
func (a *Archive) Close() error {
	a.closing.Lock()
	if a.closed {
		a.closing.Unlock()
		return nil
	}
	a.closed = true
	a.closing.Unlock()
	close(a.requests)
	if a.bookings != a.requests {
		close(a.bookings)
	}
	a.writing.Wait()
	a.stopLoading()
	a.loading.Wait()
	err := a.closeIndex()
	if err != nil {
		a.untidy.Store(true)
	}
	if a.bucket != nil {
		a.bucket.close()
	}
	return errors.Join(err, a.leave())
}

// OnStored has f called with the Study Instance UID after each commit that took instances from outside; news is false when all of
// them were here already. f is called from the goroutine that committed and must not take long.
func (a *Archive) OnStored(f func(studyUID string, news bool)) {
	a.hooks.Lock()
	defer a.hooks.Unlock()
	a.stored = append(a.stored, f)
}

func (a *Archive) tellStored(studyUID string, news bool) {
	a.hooks.RLock()
	defer a.hooks.RUnlock()
	for _, f := range a.stored {
		f(studyUID, news)
	}
}

const (
	instancesDir = "instances"
	documentsDir = "documents"
	recordsDir   = "records"
	incomingDir  = "incoming"
)

// look parses the header of a file, and does not sum it up where the archive was told how.
func (a *Archive) look(path string) (*pipeline.Instance, error) {
	if a.opts.Header != nil {
		return a.opts.Header(path)
	}
	return a.open(path)
}

func (a *Archive) path(elem ...string) string {
	return filepath.Join(append([]string{a.dir}, elem...)...)
}

// instancePath is where an instance's bytes are. The UIDs must be valid.
func (a *Archive) instancePath(own bool, study, series, sop string) string {
	root := instancesDir
	if own {
		root = documentsDir
	}
	return a.path(root, study, series, sop+".dcm")
}

// Room returns an error that wraps pipeline.ErrFull when n more bytes would touch the reserve.
func (a *Archive) Room(n int64) error {
	if a.opts.Reserve < 0 {
		return nil
	}
	free, err := a.opts.FreeSpace(a.dir)
	if err != nil {
		return fmt.Errorf("the free disk space cannot be asked: %w", err)
	}
	if free-n < a.opts.Reserve {
		return fmt.Errorf("%w: %d MB are free where the archive is and %d MB stay reserved; free some space", pipeline.ErrFull, free>>20, a.opts.Reserve>>20)
	}
	return nil
}

func freeSpace(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// full adds pipeline.ErrFull to an error of the operating system that means it.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", pipeline.ErrFull, bare(err))
	}
	return bare(err)
}

// bare strips the path from an error of a file operation: the archive's folder is no business of who uploads.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Op, p.Err)
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return fmt.Errorf("%s: %w", l.Op, l.Err)
	}
	return err
}
