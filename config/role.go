package config

import (
	"errors"
	"fmt"
	"net/url"
)

// Role is what a process does of the service.
type Role string

// The roles. A web takes studies in and answers about them, without a model; a worker reads and delivers. They share the archive's folder, its index and a Redis.
const (
	RoleAll    Role = "all"
	RoleWeb    Role = "web"
	RoleWorker Role = "worker"
)

// Reads tells whether the process has a model.
func (r Role) Reads() bool { return r != RoleWeb }

func (c Config) checkRole() error {
	switch c.Role {
	case RoleAll, RoleWeb, RoleWorker:
	default:
		return fmt.Errorf("role: %q is none of all, web and worker", c.Role)
	}
	var errs []error
	if c.Role != RoleAll && c.Archive.Index == "" {
		errs = append(errs, fmt.Errorf("role: %s shares the archive's index with other processes: set archive.index to the URL of a PostgreSQL database", c.Role))
	}
	if c.Role != RoleAll && c.Jobs.Redis == "" {
		errs = append(errs, fmt.Errorf("role: %s shares the queue with other processes: set jobs.redis to the URL of a Redis server", c.Role))
	}
	if c.Role == RoleAll && c.Archive.Index != "" && c.Jobs.Redis == "" {
		errs = append(errs, errors.New("archive.index: several processes may share this index, and each would read every study: set jobs.redis to the URL of a Redis server too"))
	}
	if c.WorkerURL != "" {
		if u, err := url.Parse(c.WorkerURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			errs = append(errs, errors.New("worker_url: not a URL like http://worker:8080, without user and password"))
		}
		if c.Role != RoleWeb {
			errs = append(errs, errors.New("worker_url: only a web passes requests on; set role: web, or leave it empty"))
		}
	}
	return errors.Join(errs...)
}
