package archive

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"chatxray/pipeline"
)

// Checked is what Check has found. All but Whole and Replaced are problems.
type Checked struct {
	Whole    int // files with the sha256 that the index has
	Replaced int // earlier contents, which the index does not sum up (same_uid: replace)
	Damaged  int // other bytes, or not readable
	Missing  int // index entries without their file
	Stray    int // files without index entry
}

// Problems is how many there are.
func (c Checked) Problems() int { return c.Damaged + c.Missing + c.Stray }

var (
	errDamaged = fmt.Errorf("%w: its bytes are not those that were stored", pipeline.ErrInvalid)
	errMissing = fmt.Errorf("%w: the index has an entry of it", pipeline.ErrNotFound)
	errStray   = fmt.Errorf("%w: it has no index entry", pipeline.ErrUnknown)
)

// checkPage is how many index entries are read at a time, so that none of the index's reading lasts long.
const checkPage = 1024

// Check compares every file of the archive in dir with its index, in both directions, and changes neither. A service may have the archive
// open meanwhile: what it moves while Check looks is looked at again, and a file of the last minutes may still get its entry. Each problem
// is told to opts.Warn. The error says why nothing could be compared; it wraps pipeline.ErrNotFound where there is no index.
func Check(ctx context.Context, dir string, opts Options) (c Checked, err error) {
	a, err := toLookAt(ctx, dir, opts)
	if err != nil {
		return c, err
	}
	defer a.read.Close()
	opts, alone := a.opts, !a.inUse()
	var suspects []suspect
	note := func(s suspect) { suspects = append(suspects, s) }
	if c.Whole, err = a.checkEntries(ctx, note); err == nil {
		c.Replaced, err = a.checkFiles(ctx, note)
	}
	if err != nil {
		return c, indexError(err)
	}
	if a.inUse() && alone {
		return c, fmt.Errorf("%w: a service has opened the archive meanwhile; check again", pipeline.ErrBusy)
	}
	for _, s := range suspects {
		still, err := a.confirm(ctx, s, alone)
		if err != nil {
			return c, indexError(err)
		}
		switch {
		case !still:
			continue
		case s.err == errStray:
			c.Stray++
		case errors.Is(s.err, errMissing):
			c.Missing++
		default:
			c.Damaged++
		}
		opts.Warn("a problem of the archive", s.path, s.err)
	}
	return c, nil
}

// toLookAt opens the archive in dir without a right to change it. read is to be closed.
func toLookAt(ctx context.Context, dir string, opts Options) (*Archive, error) {
	if opts.Warn == nil {
		opts.Warn = func(string, string, error) {}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.FreeSpace == nil {
		opts.FreeSpace = freeSpace
	}
	index, err := dialectOf(opts.Index)
	if err != nil {
		return nil, err
	}
	a := &Archive{dir: dir, opts: opts, index: index}
	if err := index.look(ctx, a, !a.inUse()); err != nil {
		return nil, err
	}
	if a.files, a.bucket, err = filesToCheck(a); err == nil {
		err = a.matchKind()
	}
	if err != nil {
		a.read.Close()
		return nil, err
	}
	return a, nil
}

// suspect is a file that is not as it should be, or was not when it was looked at.
type suspect struct {
	path string
	sop  string // empty where the name is none of an instance
	err  error
}

// checkEntries sums up the file of every index entry and returns how many are as they should be.
func (a *Archive) checkEntries(ctx context.Context, note func(suspect)) (whole int, err error) {
	for last := int64(0); ; {
		page, next, err := a.entriesBehind(ctx, last)
		if err != nil || len(page) == 0 {
			return whole, err
		}
		errs := make([]error, len(page))
		var work errgroup.Group
		work.SetLimit(runtime.GOMAXPROCS(0))
		for i, in := range page {
			work.Go(func() error {
				errs[i] = a.compareSum(ctx, in)
				return ctx.Err()
			})
		}
		if err := work.Wait(); err != nil {
			return whole, err
		}
		for _, err := range errs {
			if errors.Is(err, pipeline.ErrUnavailable) {
				return whole, err
			}
		}
		for i, err := range errs {
			if err == nil {
				whole++
			} else {
				note(suspect{page[i].Path, page[i].SOPInstanceUID, err})
			}
		}
		if last = next; a.opts.Progress != nil {
			a.opts.Progress(whole)
		}
	}
}

func (a *Archive) entriesBehind(ctx context.Context, id int64) (page []*pipeline.Instance, last int64, err error) {
	rows, err := a.read.QueryContext(ctx, "SELECT "+instanceColumns+", i.id"+instanceTables+" WHERE i.id > ? ORDER BY i.id LIMIT ?", id, checkPage)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		in, _, _, err := a.scanInstance(rowAnd{rows, &last})
		if err != nil {
			return nil, 0, err
		}
		page = append(page, in)
	}
	return page, last, rows.Err()
}

// rowAnd scans one column more than it is asked for.
type rowAnd struct {
	row
	more any
}

func (r rowAnd) Scan(to ...any) error { return r.row.Scan(append(to, r.more)...) }

// compareSum returns what is wrong with the file of an index entry.
func (a *Archive) compareSum(ctx context.Context, in *pipeline.Instance) error {
	f, err := a.openKept(ctx, in)
	if errors.Is(err, fs.ErrNotExist) {
		return errMissing
	}
	if err != nil {
		return fmt.Errorf("it cannot be read: %w", bare(err))
	}
	defer f.Close()
	h := sha256.New()
	for {
		_, err := io.CopyN(h, f, 16<<20)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			continue
		case err != io.EOF:
			return fmt.Errorf("it cannot be read: %w", bare(err))
		case [sha256.Size]byte(h.Sum(nil)) != in.Digest:
			return errDamaged
		}
		return nil
	}
}

// checkFiles looks for files without index entry and returns how many are earlier contents of one that has an entry.
func (a *Archive) checkFiles(ctx context.Context, note func(suspect)) (replaced int, err error) {
	if a.bucket != nil {
		return a.checkObjects(ctx, note)
	}
	for _, tree := range fileTrees {
		err := filepath.WalkDir(a.path(tree), func(path string, f fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) { // deleted meanwhile
				return nil
			}
			if err != nil || f.IsDir() {
				return errors.Join(err, ctx.Err())
			}
			name, ok := strings.CutSuffix(f.Name(), ".dcm")
			sop, version, numbered := cutVersion(name)
			if !ok || !numbered {
				note(suspect{path: path, err: errStray})
				return nil
			}
			switch in, err := a.entry(ctx, sop); {
			case err != nil:
				return err
			case in == nil || filepath.Dir(in.Path) != filepath.Dir(path):
				note(suspect{path, sop, errStray})
			case in.Path != path:
				if _, last, _ := cutVersion(strings.TrimSuffix(filepath.Base(in.Path), ".dcm")); version > last {
					note(suspect{path, sop, errStray})
					return nil
				}
				replaced++
			}
			return nil
		})
		if err != nil {
			return replaced, err
		}
	}
	return replaced, nil
}

// entry reads the index entry of an instance; nil where there is none.
func (a *Archive) entry(ctx context.Context, sop string) (*pipeline.Instance, error) {
	in, _, _, err := a.scanInstance(a.read.QueryRowContext(ctx, findInstance, sop))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return in, err
}

// young is the age of a file under which a service that runs may not have entered it yet.
const young = 5 * time.Minute

// confirm looks at a suspect again: a service places a file before its entry, and deletes it before its entry, under a note.
func (a *Archive) confirm(ctx context.Context, s suspect, alone bool) (still bool, err error) {
	if s.err == errStray && a.bucket != nil {
		return true, nil // checkObjects has looked
	}
	if s.err == errStray {
		info, err := os.Lstat(s.path)
		if err != nil || !alone && time.Since(info.ModTime()) < young {
			return false, nil
		}
		if s.sop == "" {
			return true, nil
		}
		in, err := a.entry(ctx, s.sop)
		return err == nil && (in == nil || in.Path != s.path), err
	}
	for range 2 { // a deletion that ends between two looks takes the entry along, or is seen by its note
		in, err := a.entry(ctx, s.sop)
		if err != nil || in == nil || in.Path != s.path { // deleted or replaced
			return false, err
		}
		if a.compareSum(ctx, in) == nil || a.beingDeleted(in.StudyInstanceUID) {
			return false, nil
		}
	}
	return true, ctx.Err()
}

// beingDeleted tells whether a deletion in a study has begun and not ended; one that a crash has interrupted ends at the next start.
func (a *Archive) beingDeleted(study string) bool {
	notes, _ := os.ReadDir(a.path(deletingDir))
	for _, n := range notes {
		if d, err := readDeletion(a.path(deletingDir, n.Name())); err == nil && d.Study == study {
			return true
		}
	}
	return false
}

// inUse tells whether another process has the archive open.
func (a *Archive) inUse() bool {
	lock, err := os.Open(a.path("lock"))
	if err != nil {
		return false
	}
	defer lock.Close()
	return syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}
