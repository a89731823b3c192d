// Command line measures the machinery around a reading: the real binary with the stub reader and a real redis-server, studies of one small
// radiograph each.
//
//	go run ./bench/line                      processor time and studies a second, 1 and 4 readers; how 1, 2, 4, 8 readers of one process scale; the index in SQLite
//	go run ./bench/line -index postgres      the same of a web and one worker, the index in Debian's PostgreSQL (its default settings, a Unix socket)
//	go run ./bench/line -workers             1, 2, 4, 8 workers with one reader each, over PostgreSQL
//	go run ./bench/line -known 100000        a large queue: memory, a restart, claims, an urgent study, FLUSHALL; -index postgres: of a web and one worker
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"chatxray/e2e/postgres"
)

func main() {
	binary := flag.String("binary", "", "chatxray; empty: it is built")
	studies := flag.Int("studies", 2000, "studies of each measurement")
	index := flag.String("index", "sqlite", "where the index is: sqlite or postgres")
	workers := flag.String("workers", "", "measure instead how fast so many workers are, 1,2,4,8; the index is in PostgreSQL")
	sleep := flag.Duration("sleep", 20*time.Millisecond, "how long a reading takes where it is measured how reading scales")
	known := flag.Int("known", 0, "measure with a queue of so many studies instead")
	dir := flag.String("dir", "", "where the archives lie while they are used; empty: the system's folder for temporary files")
	flag.Parse()
	b := &bench{binary: *binary, studies: *studies, sleep: *sleep}
	measure := func() error { return errors.Join(b.machinery(1), b.machinery(4), b.readers()) }
	switch {
	case *workers != "":
		measure, *index = func() error { return b.workers(strings.Split(*workers, ",")) }, "postgres"
	case *known > 0:
		measure = func() error { return b.large(*known) }
	}
	done, stopped := make(chan error, 1), make(chan os.Signal, 1)
	signal.Notify(stopped, os.Interrupt, syscall.SIGTERM)
	go func() {
		err := b.open(*dir, *index)
		if err == nil {
			err = measure()
		}
		done <- err
	}()
	var err error
	select {
	case err = <-done:
	case s := <-stopped:
		err = fmt.Errorf("stopped by a signal: %v", s)
	}
	b.close()
	if err != nil {
		fmt.Fprintln(os.Stderr, "line:", err)
		os.Exit(1)
	}
}

type bench struct {
	binary   string
	studies  int
	sleep    time.Duration // of a reading, where it is measured how reading scales
	dir      string
	redis    *server
	port     int              // of Redis
	postgres *postgres.Server // nil: indexes are in SQLite
	started  []*os.Process
	next     int // number of the next study
}

// open starts what the service needs.
func (b *bench) open(dir, index string) (err error) {
	if b.dir, err = os.MkdirTemp(dir, "chatxray-line-"); err != nil {
		return err
	}
	switch index {
	case "sqlite":
	case "postgres":
		if err := os.Chmod(b.dir, 0o755); err != nil { // PostgreSQL runs as another user
			return err
		}
		if b.postgres, err = postgres.StartIn(b.dir); err != nil {
			return err
		}
	default:
		return fmt.Errorf("-index %q is neither sqlite nor postgres", index)
	}
	if b.binary == "" {
		b.binary = filepath.Join(b.dir, "chatxray")
		if out, err := exec.Command("go", "build", "-o", b.binary, "./cmd/chatxray").CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return b.startRedis()
}

// flush empties Redis.
func (b *bench) flush() error {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.port))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprint(c, "FLUSHALL\r\n"); err != nil {
		return err
	}
	said, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.HasPrefix(said, "+OK") {
		err = fmt.Errorf("Redis says %q", said)
	}
	return err
}
