package archive

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// syncDir makes the entries of a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// syncFile makes the content of a file durable.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// writeDurably puts a whole file in its place: after a crash there is either the old one or the new one.
func writeDurably(path string, data []byte) error { return writeWhole(path, data, true) }

// writeWhole puts a whole file in its place: who reads it, or kills this process, finds the old one or the new one; durable: so does who takes the power away.
func writeWhole(path string, data []byte, durable bool) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".*.new")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if durable {
		err = errors.Join(err, f.Sync())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	if !durable {
		return nil
	}
	return syncDir(dir)
}

// makeDirs makes the missing folders below root and returns the folders whose entries are new, from the bottom up.
func makeDirs(root string, names ...string) (changed []string, err error) {
	dir := root
	for _, n := range names {
		parent := dir
		dir = filepath.Join(dir, n)
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			changed = append(changed, parent)
		} else if !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	return changed, nil
}

// sameDataSet compares what follows the File Meta Information of two files (PS3.10 section 7.1): senders write that group anew.
func sameDataSet(a, b string) (bool, error) {
	x, err := openDataSet(a)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := openDataSet(b)
	if err != nil {
		return false, err
	}
	defer y.Close()
	return sameBytes(x, y)
}

func openDataSet(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var head [144]byte
	skip := int64(0)
	if _, err := io.ReadFull(f, head[:]); err == nil && bytes.Equal(head[128:140], []byte("DICM\x02\x00\x00\x00UL\x04\x00")) {
		skip = int64(len(head)) + int64(binary.LittleEndian.Uint32(head[140:]))
	}
	if _, err := f.Seek(skip, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func sameBytes(x, y io.Reader) (bool, error) {
	const step = 64 << 10
	bx, by := bufio.NewReaderSize(x, step), bufio.NewReaderSize(y, step)
	for {
		p, errx := bx.Peek(step)
		q, erry := by.Peek(step)
		for _, err := range []error{errx, erry} {
			if err != nil && err != io.EOF {
				return false, err
			}
		}
		if !bytes.Equal(p, q) {
			return false, nil
		}
		if len(p) < step {
			return true, nil
		}
		_, _ = bx.Discard(step)
		_, _ = by.Discard(step)
	}
}
