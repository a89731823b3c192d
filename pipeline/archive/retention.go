package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"chatxray/pipeline"
)

// Retention says which studies go when the archive has to stay within bounds. The zero value keeps everything.
type Retention struct {
	// Days is how long a study stays after its last instance came; 0 is for ever.
	Days int `yaml:"days"`
	// Studies is how many stay; 0 is any number.
	Studies int `yaml:"studies"`
	// HighPercent is how full the disk is, reserve_mb not counted, when the oldest studies begin to go, until it is LowPercent full; 0 is never.
	HighPercent int `yaml:"high_percent"`
	LowPercent  int `yaml:"low_percent"`
	// Also are studies that go, too, though something is still to be done for them: held, failed, undelivered. What is being received, waits to be read or
	// is being read never goes.
	Also []string `yaml:"also"`
}

// retentionAlso are the values of Retention.Also.
var retentionAlso = []string{"held", "failed", "undelivered"}

func (r Retention) check() error {
	var errs []error
	if r.Days < 0 || r.Studies < 0 {
		errs = append(errs, errors.New("archive.retention: days and studies are 0 or more"))
	}
	if (r.HighPercent != 0 || r.LowPercent != 0) && !(0 < r.LowPercent && r.LowPercent < r.HighPercent && r.HighPercent <= 99) {
		errs = append(errs, errors.New("archive.retention: low_percent is above 0 and below high_percent, which is at most 99; or both are 0"))
	}
	for _, also := range r.Also {
		if !slices.Contains(retentionAlso, also) {
			errs = append(errs, fmt.Errorf("archive.retention.also: %q is none of held, failed, undelivered", also))
		}
	}
	return errors.Join(errs...)
}

// On tells whether anything ever goes.
func (r Retention) On() bool { return r.Days > 0 || r.Studies > 0 || r.HighPercent > 0 }

// Expired is a study that is to go.
type Expired struct {
	StudyInstanceUID string    `json:"study_instance_uid"`
	Received         time.Time `json:"received"` // of its last instance
	Bytes            int64     `json:"bytes"`    // of its files
	Reason           string    `json:"reason"`   // age, count or disk
}

// Expired returns up to most studies that are to go, the oldest first; 0 is all.
func (a *Archive) Expired(ctx context.Context, r Retention, most int) ([]Expired, error) {
	cutoff, excess, need := int64(0), int64(0), int64(0)
	if r.Days > 0 {
		cutoff = a.opts.Now().Add(-time.Duration(r.Days) * 24 * time.Hour).UnixNano()
	}
	if r.Studies > 0 {
		var n int64
		if err := a.read.QueryRowContext(ctx, "SELECT count(*) FROM study WHERE received IS NOT NULL").Scan(&n); err != nil {
			return nil, indexError(err)
		}
		excess = n - int64(r.Studies)
	}
	if r.HighPercent > 0 {
		size, used, err := a.disk()
		if err != nil {
			return nil, fmt.Errorf("how full the disk is cannot be asked: %w", err)
		}
		if used*100 >= size*int64(r.HighPercent) {
			need = used - size*int64(r.LowPercent)/100
		}
	}
	if cutoff == 0 && excess <= 0 && need <= 0 {
		return nil, nil
	}
	also := func(what string) bool { return slices.Contains(r.Also, what) }
	rows, err := a.read.QueryContext(ctx, `SELECT s.uid, s.received, (SELECT ifnull(CAST(sum(i.size) AS BIGINT), 0) FROM instance i JOIN series e ON e.id = i.series WHERE e.study = s.id)
		FROM study s JOIN life l ON l.study = s.uid WHERE s.received IS NOT NULL
			AND (l.open = 0 AND l.state NOT IN ('receiving', 'complete', 'queued', 'reading', 'held', 'failed') OR ? = 1 AND l.state = 'held' OR ? = 1 AND l.state = 'failed')
			AND (? = 1 OR NOT EXISTS (SELECT 1 FROM record r WHERE r.study = s.uid AND r.outgoing != 0))
		ORDER BY s.received, s.uid`, also("held"), also("failed"), also("undelivered"))
	if err != nil {
		return nil, indexError(err)
	}
	defer rows.Close()
	var out []Expired
	for freed := int64(0); rows.Next() && (most == 0 || len(out) < most); {
		var e Expired
		var received int64
		if err := rows.Scan(&e.StudyInstanceUID, &received, &e.Bytes); err != nil {
			return nil, indexError(err)
		}
		switch e.Received = fromNanos(received); {
		case received < cutoff:
			e.Reason = "age"
		case int64(len(out)) < excess:
			e.Reason = "count"
		case freed < need:
			e.Reason = "disk"
		default:
			return out, nil
		}
		freed += e.Bytes
		out = append(out, e)
	}
	return out, indexErrorOrNil(rows.Err())
}

// disk is the size of the disk and how much of it is used; the reserve is no part of it.
func (a *Archive) disk() (size, used int64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(a.dir, &s); err != nil {
		return 0, 0, err
	}
	free, err := a.opts.FreeSpace(a.dir)
	if err != nil {
		return 0, 0, err
	}
	size = int64(s.Blocks-s.Bfree+s.Bavail)*s.Bsize - max(0, a.opts.Reserve)
	return size, size - max(0, free-max(0, a.opts.Reserve)), nil
}

// Expire deletes a study that is to go, unless something of it has come meanwhile: then the error wraps pipeline.ErrConflict.
func (a *Archive) Expire(ctx context.Context, e Expired) (instances int, err error) {
	n, _, err := a.delete(ctx, deletion{Study: e.StudyInstanceUID}, func() error {
		var received int64
		err := a.read.QueryRowContext(ctx, "SELECT ifnull(received, 0) FROM study WHERE uid = ?", e.StudyInstanceUID).Scan(&received)
		if err == nil && received != e.Received.UnixNano() {
			return fmt.Errorf("%w: something of study %s has come meanwhile", pipeline.ErrConflict, e.StudyInstanceUID)
		}
		return indexErrorOrNil(noRow(err))
	})
	return n, err
}

// Expiring is what of the archive in dir would go now. A service may have the archive open meanwhile.
func Expiring(ctx context.Context, dir string, r Retention, opts Options) ([]Expired, error) {
	var out []Expired
	err := View(ctx, dir, opts, func(a *Archive) (err error) {
		out, err = a.Expired(ctx, r, 0)
		return err
	})
	return out, err
}
