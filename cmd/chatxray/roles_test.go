package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/rs/zerolog"

	"chatxray/config"
	"chatxray/pipeline"
	"chatxray/pipeline/jobs"
)

// A worker whose bundle has the name and the version of another one that is being read with waits, tells so, and begins when that has stopped; one with
// another version of it begins at once.
func TestTwoBundlesOfOneName(t *testing.T) {
	server := miniredis.RunT(t)
	cfg := config.Default()
	cfg.Jobs.Redis, cfg.Jobs.Lease = pipeline.Secret("redis://"+server.Addr()), time.Second
	start := func(version string, digest byte) (m *membership, free chan struct{}, stop func()) {
		claims, err := jobs.Open(t.Context(), cfg.Jobs)
		if err != nil {
			t.Fatal(err)
		}
		m = newMembership(claims, cfg, pipeline.ModelRef{Name: "chest", Version: version, Digest: pipeline.Digest{digest}})
		free = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.keep(ctx, streams{log: zerolog.New(io.Discard)}, free)
		}()
		stop = func() { cancel(); <-done; _ = claims.Close() }
		return m, free, stop
	}
	wait := func(what string, free <-chan struct{}) {
		t.Helper()
		select {
		case <-free:
		case <-time.After(time.Minute):
			t.Fatal(what, "does not begin")
		}
	}
	_, free, stop := start("1", 1)
	wait("the first", free)
	second, waiting, stopSecond := start("1", 2)
	defer stopSecond()
	third, free, stopThird := start("2", 3)
	defer stopThird()
	wait("another version", free)
	for end := time.Now().Add(time.Minute); second.Check(t.Context()) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the second one is not told")
		}
	}
	if err := second.Check(t.Context()); !strings.Contains(err.Error(), "chest 1") || third.Check(t.Context()) != nil {
		t.Error(err, third.Check(t.Context()))
	}
	select {
	case <-waiting:
		t.Fatal("the second one reads beside the first")
	default:
	}
	stop()
	wait("the second, when the first has stopped,", waiting)
	if err := second.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
