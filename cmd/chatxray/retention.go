package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

// keeper deletes studies that the configuration lets go.
type keeper struct {
	deleter
	retention archive.Retention
	log       zerolog.Logger
	deleted   *prometheus.CounterVec
}

func newKeeper(d deleter, r archive.Retention, log zerolog.Logger, metrics prometheus.Registerer) keeper {
	k := keeper{deleter: d, retention: r, log: log, deleted: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "chatxray", Name: "retention_deleted_total",
		Help: "Studies that archive.retention has deleted, by reason."}, []string{"reason"})}
	metrics.MustRegister(k.deleted)
	for _, reason := range []string{"age", "count", "disk"} {
		k.deleted.WithLabelValues(reason)
	}
	return k
}

// Age and number are looked at every ten minutes, which goes over all studies; how full the disk is every minute, which does not.
const (
	retentionPause = time.Minute
	retentionAll   = 10
)

// run deletes until ctx ends.
func (k keeper) run(ctx context.Context) {
	if !k.retention.On() {
		return
	}
	tick := time.NewTicker(retentionPause)
	defer tick.Stop()
	for n := 0; ; n++ {
		r := k.retention
		if n%retentionAll != 0 {
			r.Days, r.Studies = 0, 0
		}
		if err := k.pass(ctx, r); err != nil && ctx.Err() == nil {
			k.log.Warn().Err(err).Msg("what archive.retention lets go could not be deleted; it is tried again")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pass deletes all that is to go now. A study of which something has come meanwhile stays.
func (k keeper) pass(ctx context.Context, r archive.Retention) error {
	const page = 1000
	for {
		expired, err := k.arch.Expired(ctx, r, page)
		if err != nil {
			return err
		}
		deleted := 0
		for _, e := range expired {
			if ctx.Err() != nil {
				return nil
			}
			n, err := k.expire(ctx, e)
			if errors.Is(err, pipeline.ErrNotFound) || errors.Is(err, pipeline.ErrConflict) {
				continue
			}
			if err != nil {
				return err
			}
			deleted++
			k.deleted.WithLabelValues(e.Reason).Inc()
			k.log.Warn().Str("study", e.StudyInstanceUID).Int("instances", n).Int64("bytes", e.Bytes).Time("received", e.Received).Str("reason", e.Reason).
				Msg("deleted by archive.retention")
		}
		if len(expired) < page || deleted == 0 {
			return nil
		}
	}
}

func (d deleter) expire(ctx context.Context, e archive.Expired) (int, error) {
	release := d.line.Hold(e.StudyInstanceUID)
	defer release()
	return d.arch.Expire(context.WithoutCancel(ctx), e)
}

type retentionCmd struct {
	archiveFlags
	JSON bool `help:"Print JSON, an object a study."`
}

// Help is shown by chatxray archive retention --help.
func (retentionCmd) Help() string {
	return `Shows which studies archive.retention of the configuration file lets go now, the oldest first, and why: age, count, or disk. Nothing is deleted;
the service does that by itself, and may be running. Only UIDs are shown.

Exit codes: 0 shown; 1 there is no archive, or no index that can be read; 6 the configuration is wrong, or has no archive.retention.`
}

// Run shows what would go.
func (c retentionCmd) Run(ctx context.Context, s streams) error {
	cfg, err := c.configuration()
	if err != nil {
		return err
	}
	if !cfg.Archive.Retention.On() {
		return fmt.Errorf("%w: archive.retention lets nothing go; name the service's configuration with --config", errConfig)
	}
	expired, err := archive.Expiring(ctx, cfg.Data, cfg.Archive.Retention, cfg.Archive.Options(nil))
	if err != nil {
		return err
	}
	out := newTable(s.out, c.JSON, "STUDY", "RECEIVED", "BYTES", "REASON")
	for _, e := range expired {
		if err := out.row(e, e.StudyInstanceUID, when(e.Received), strconv.FormatInt(e.Bytes, 10), e.Reason); err != nil {
			return err
		}
	}
	return out.flush()
}
