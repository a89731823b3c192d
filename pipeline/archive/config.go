package archive

import (
	"errors"
	"fmt"

	"chatxray/pipeline"
)

// Config is the section "archive" of the configuration file.
type Config struct {
	// ReserveMB is the disk space that uploads leave free, in MB: what would eat into it is refused before it is accepted.
	ReserveMB int64 `yaml:"reserve_mb"`
	// Index is the URL of the PostgreSQL database that has the index, so that several processes can share the archive: postgres://user:password@host/database;
	// "env:NAME" takes it from the environment. Empty: SQLite in the archive's folder, for a service that runs alone.
	Index pipeline.Secret `yaml:"index"`
	// SameUID is what becomes of other content under a SOP Instance UID that is kept: keep the first, or replace it.
	SameUID string `yaml:"same_uid"`
	// Objects is where the files are kept: empty, the folder; or s3://BUCKET/PREFIX, and the folder has the index and a cache.
	Objects string `yaml:"objects"`
	S3      S3     `yaml:"s3"`
	// CacheMB is how much of what lies in S3 is kept on this disk, too.
	CacheMB   int64     `yaml:"cache_mb"`
	Retention Retention `yaml:"retention"`
}

// The values of Config.SameUID.
const (
	sameUIDKeep    = "keep"
	sameUIDReplace = "replace"
)

// DefaultConfig keeps DefaultReserve free and the first content of a UID.
func DefaultConfig() Config {
	return Config{ReserveMB: DefaultReserve >> 20, SameUID: sameUIDKeep, S3: S3{Region: "us-east-1", PathStyle: true, TimeoutSeconds: 30}, CacheMB: 10 << 10}
}

// Check returns what is wrong with the configuration.
func (c Config) Check() error {
	var errs []error
	if c.ReserveMB < 0 {
		errs = append(errs, errors.New("archive.reserve_mb: less than 0"))
	}
	if c.SameUID != sameUIDKeep && c.SameUID != sameUIDReplace {
		errs = append(errs, fmt.Errorf("archive.same_uid: %q is neither keep nor replace", c.SameUID))
	}
	if _, err := dialectOf(c.Index); err != nil {
		errs = append(errs, err)
	}
	if c.CacheMB < 1 {
		errs = append(errs, errors.New("archive.cache_mb: less than 1"))
	}
	if c.Objects != "" && c.Retention.HighPercent != 0 {
		errs = append(errs, errors.New("archive.retention.high_percent: the disk has a cache only where archive.objects is set; cache_mb bounds it"))
	}
	return errors.Join(append(errs, c.Retention.check(), c.S3.check(c.Objects))...)
}

// Options returns the options of an archive with this configuration.
func (c Config) Options(warn func(what, path string, err error)) Options {
	o := Options{Index: c.Index, Reserve: c.ReserveMB << 20, Warn: warn, Replace: c.SameUID == sameUIDReplace, Objects: c.Objects, S3: c.S3, Cache: c.CacheMB << 20}
	if c.ReserveMB == 0 {
		o.Reserve = -1
	}
	return o
}
