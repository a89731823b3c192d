package jobs

import (
	"testing"
	"time"
)

// A bundle with the name and the version of another one that is being read with does not join; another version of it does, and so does the same
// after the other has left or died.
func TestMembers(t *testing.T) {
	ctx := t.Context()
	cfg := Default()
	cfg.Lease = time.Second
	a, err := Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	beside := func() *Client {
		other := &Client{cfg: cfg, redis: a.redis, worker: workerName()}
		return other
	}
	b, c := beside(), beside()
	one := Member{Model: "chest", Version: "1", Digest: "aa"}
	join := func(who *Client, m Member, want string) {
		t.Helper()
		other, err := who.Join(ctx, m, false)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if other != nil {
			got = other.Worker
		}
		if got != want {
			t.Errorf("%+v: another one in the way: %q, want %q", m, got, want)
		}
	}
	join(a, one, "")
	join(b, one, "")
	if err := b.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	changed := Member{Model: "chest", Version: "1", Digest: "bb"}
	join(b, changed, a.Worker())
	join(c, Member{Model: "chest", Version: "2", Digest: "cc"}, "")
	all, err := a.Members(ctx)
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	if other, err := a.Join(ctx, changed, true); err != nil || other != nil { // who has joined stays in any case
		t.Fatal(other, err)
	}
	if other, err := a.Join(ctx, one, true); err != nil || other != nil {
		t.Fatal(other, err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // a is seen no more
		other, err := b.Join(ctx, changed, false)
		if err != nil || time.Now().After(end) {
			t.Fatal(other, err)
		}
		if other == nil {
			break
		}
	}
	join(a, one, b.Worker())
}
