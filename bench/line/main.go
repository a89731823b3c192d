// Command line measures the machinery around a reading: the real binary with the stub reader and a real redis-server, studies of one small
// radiograph each.
//
//	go run ./bench/line                    processor time and studies a second; readers 1, 2, 4, 8
//	go run ./bench/line -known 100000      a large queue: memory, a restart, an urgent study, FLUSHALL
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

func main() {
	binary := flag.String("binary", "", "chatxray; empty: it is built")
	studies := flag.Int("studies", 2000, "studies of each measurement")
	known := flag.Int("known", 0, "measure with a queue of so many studies instead")
	dir := flag.String("dir", "", "where the archives lie while they are used; empty: the system's folder for temporary files")
	flag.Parse()
	b := &bench{binary: *binary, studies: *studies}
	if err := b.run(*dir, *known); err != nil {
		fmt.Fprintln(os.Stderr, "line:", err)
		os.Exit(1)
	}
}

type bench struct {
	binary  string
	studies int
	dir     string
	redis   *server
	port    int // of Redis
	next    int // number of the next study
}

func (b *bench) run(dir string, known int) (err error) {
	if b.dir, err = os.MkdirTemp(dir, "chatxray-line-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.binary == "" {
		b.binary = filepath.Join(b.dir, "chatxray")
		if out, err := exec.Command("go", "build", "-o", b.binary, "./cmd/chatxray").CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	if b.redis, b.port, err = startRedis(b.dir); err != nil {
		return err
	}
	defer b.redis.stop()
	if known > 0 {
		return b.large(known)
	}
	return errors.Join(b.machinery(), b.readers())
}

// machinery tells what a study costs: taken by STOW-RS, from complete to reported, delivered.
func (b *bench) machinery() error {
	to, err := newReceiver()
	if err != nil {
		return err
	}
	defer to.Close()
	a := b.archive("machinery", "line: {quiet: 1h}\n")
	s, err := a.serve("")
	if err != nil {
		return err
	}
	began, cpu := time.Now(), s.cpu()
	if err := s.store(b, b.studies, 1, 4, ""); err != nil {
		return err
	}
	report("STOW-RS, a study each request, 4 at a time", b.studies, time.Since(began), s.cpu()-cpu, 0)
	s.stop()
	if err := b.flush(); err != nil { // where it is due in an hour
		return err
	}

	// Started again with what is complete: from its first instruction, so what a start costs is in it.
	to.hold(true)
	a.config = fmt.Sprintf("line: {quiet: 0s}\ndestinations: [{name: to, url: \"http://%s\", timeout: 10m}]\n", to.addr)
	redis := b.redis.cpu()
	began = time.Now()
	if s, err = a.serve("0s"); err != nil {
		return err
	}
	defer s.stop()
	if err := s.until("chatxray_studies_read_total", b.studies, true); err != nil {
		return err
	}
	report("complete to reported, one reader", b.studies, time.Since(began), s.cpu(), b.redis.cpu()-redis)
	cpu, redis, began = s.cpu(), b.redis.cpu(), time.Now()
	to.hold(false)
	if err := s.until("chatxray_deliveries_total", b.studies, false); err != nil {
		return err
	}
	report("delivered, 4 at a time", b.studies, time.Since(began), s.cpu()-cpu, b.redis.cpu()-redis)
	return nil
}

// readers tells how reading scales with the number of readers of one process where a reading takes 20 ms.
func (b *bench) readers() error {
	var one float64
	for _, n := range []int{1, 2, 4, 8} {
		a := b.archive(fmt.Sprintf("readers-%d", n), "line: {quiet: 1h}\n")
		s, err := a.serve("")
		if err != nil {
			return err
		}
		studies := 200 * n
		err = s.store(b, studies, 50, 2, "")
		s.stop()
		if err = errors.Join(err, b.flush()); err != nil {
			return err
		}
		a.config = fmt.Sprintf("line: {quiet: 0s, readers: %d}\n", n)
		if s, err = a.serve("20ms"); err != nil {
			return err
		}
		// The first tenth is the start.
		err = s.until("chatxray_studies_read_total", studies/10, false)
		began, from := time.Now(), s.metric("chatxray_studies_read_total")
		if err == nil {
			err = s.until("chatxray_studies_read_total", studies, true)
		}
		rate := (float64(studies) - from) / time.Since(began).Seconds()
		s.stop()
		if err != nil {
			return err
		}
		if n == 1 {
			one = rate
		}
		fmt.Printf("%d readers, 20 ms a reading: %.1f studies/s, %.2f of linear\n", n, rate, rate/one/float64(n))
	}
	return nil
}

func report(what string, n int, took, cpu, redis time.Duration) {
	fmt.Printf("%-45s %6.2f ms CPU a study, %7.1f studies/s", what, float64(cpu.Microseconds())/1e3/float64(n), float64(n)/took.Seconds())
	if redis > 0 {
		fmt.Printf(", Redis %.2f ms CPU a study", float64(redis.Microseconds())/1e3/float64(n))
	}
	fmt.Println()
}
