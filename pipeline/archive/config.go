package archive

import "errors"

// Config is the section "archive" of the configuration file.
type Config struct {
	// ReserveMB is the disk space that uploads leave free, in MB: what would eat into it is refused before it is accepted.
	ReserveMB int64 `yaml:"reserve_mb"`
}

// DefaultConfig keeps DefaultReserve free.
func DefaultConfig() Config { return Config{ReserveMB: DefaultReserve >> 20} }

// Check returns what is wrong with the configuration.
func (c Config) Check() error {
	if c.ReserveMB < 0 {
		return errors.New("archive.reserve_mb: less than 0")
	}
	return nil
}

// Options returns the options of an archive with this configuration.
func (c Config) Options(warn func(what, path string, err error)) Options {
	o := Options{Reserve: c.ReserveMB << 20, Warn: warn}
	if c.ReserveMB == 0 {
		o.Reserve = -1
	}
	return o
}
