package chaos

import (
	"errors"
	"sync"
	"testing"
	"time"

	"chatxray/e2e/postgres"
)

// database is a PostgreSQL that can be restarted, as by a crash.
type database struct {
	url    string
	mu     sync.Mutex
	server *postgres.Server
}

func newDatabase(t *testing.T) *database {
	t.Helper()
	s, err := postgres.Start()
	if errors.Is(err, postgres.ErrAbsent) {
		missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	d := &database{server: s}
	if d.url, err = s.Create("chaos"); err != nil {
		t.Fatal(err)
	}
	return d
}

// restart ends the server at once and keeps it down for a while.
func (d *database) restart(t *testing.T, down time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.server.Down("immediate")
	time.Sleep(down)
	if err = errors.Join(err, d.server.Up()); err != nil {
		t.Error(err)
	}
}
