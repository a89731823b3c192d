package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// server is a program that runs beside the measurement.
type server struct {
	cmd  *exec.Cmd
	root string // of a process of the service, once it is ready
	file string // the name of its files without what tells them apart
}

// start starts a program, which ends with the benchmark at the latest.
func (b *bench) start(cmd *exec.Cmd) error {
	err := cmd.Start()
	if err == nil {
		b.started = append(b.started, cmd.Process)
	}
	return err
}

// close ends all that still runs.
func (b *bench) close() {
	for _, p := range b.started {
		_ = p.Kill()
	}
	if b.postgres != nil {
		_ = b.postgres.Close()
	}
	_ = os.RemoveAll(b.dir)
}

func (b *bench) startRedis() (err error) {
	if b.port, err = freePort(); err != nil {
		return err
	}
	b.redis = &server{cmd: exec.Command("redis-server", "--port", strconv.Itoa(b.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", b.dir)}
	if err := b.start(b.redis.cmd); err != nil {
		return err
	}
	for range 100 {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.port))
		if err == nil {
			return c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("redis-server does not start")
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// cpu is the processor time of a process and of those that it has started, the ended ones included.
func cpu(pid int) (sum time.Duration) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if err != nil || len(f) < 15 {
		return 0
	}
	for _, ticks := range f[11:15] { // utime, stime, cutime, cstime
		n, _ := strconv.ParseInt(ticks, 10, 64)
		sum += time.Duration(n) * 10 * time.Millisecond // USER_HZ is 100
	}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid)) // of the first thread: those of PostgreSQL
	for _, c := range strings.Fields(string(children)) {
		n, _ := strconv.Atoi(c)
		sum += cpu(n)
	}
	return sum
}

// times are the processor times that each kind of process has used.
type times map[string]time.Duration

// kinds are those of times, in the order in which they are shown.
var kinds = []string{"service", "web", "worker", "Redis", "PostgreSQL"}

// times are those until now; s is nil where the service is not started yet.
func (b *bench) times(s *service) times {
	t := times{"Redis": cpu(b.redis.cmd.Process.Pid)}
	if b.postgres != nil {
		if pid, err := b.postgres.PID(); err == nil {
			t["PostgreSQL"] = cpu(pid)
		}
	}
	if s != nil {
		s.each(func(kind string, p *server) { t[kind] += cpu(p.cmd.Process.Pid) })
	}
	return t
}

// each names the processes of a service.
func (s *service) each(f func(kind string, p *server)) {
	for _, p := range s.processes() {
		switch {
		case s.web != p:
			f("worker", p)
		case s.workers[0] == p:
			f("service", p)
		default:
			f("web", p)
		}
	}
}

// report tells what n studies have cost since a time when the processor times were others.
func report(what string, n int, took time.Duration, before, now times) {
	fmt.Printf("%-57s %7.1f studies/s; ms CPU a study:", what, float64(n)/took.Seconds())
	var sum time.Duration
	for _, kind := range kinds {
		if d, ok := now[kind]; ok {
			fmt.Printf(" %s %.2f,", kind, (d-before[kind]).Seconds()*1e3/float64(n))
			sum += d - before[kind]
		}
	}
	fmt.Printf(" together %.2f\n", sum.Seconds()*1e3/float64(n))
}

// memory tells what each process of the service, and Redis, has resident.
func (b *bench) memory(s *service) string {
	var all []string
	s.each(func(kind string, p *server) { all = append(all, fmt.Sprintf("%s %.0f MB", kind, p.resident())) })
	return strings.Join(append(all, fmt.Sprintf("Redis %.0f MB", b.redis.resident())), ", ")
}

// resident is a program's memory in MB.
func (p *server) resident() float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for l := range strings.Lines(string(b)) {
		var kb float64
		if n, _ := fmt.Sscanf(l, "VmRSS: %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	return 0
}
