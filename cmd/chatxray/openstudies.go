package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// openStudies opens files and groups them by study, in the order of their first file. invalid is the error of the last file that
// could not be opened; each of them has been told on standard error.
func openStudies(s streams, paths []string) (studies []*pipeline.Study, invalid, err error) {
	at := map[string]*pipeline.Study{}
	add := func(name string, in *pipeline.Instance, err error) {
		if err != nil {
			invalid = fmt.Errorf("%s: %w", name, err)
			fmt.Fprintln(s.err, "chatxray:", invalid)
			invalid = fmt.Errorf("%w%w", errQuiet, invalid)
			return
		}
		st := at[in.StudyInstanceUID]
		if st == nil {
			st = &pipeline.Study{StudyInstanceUID: in.StudyInstanceUID}
			at[in.StudyInstanceUID] = st
			studies = append(studies, st)
		}
		st.Instances = append(st.Instances, in)
	}
	var named []string
	for _, p := range paths {
		if p != "-" {
			named = append(named, p)
			continue
		}
		b, err := io.ReadAll(io.LimitReader(s.in, maxStdin+1))
		if err != nil {
			return nil, nil, err
		}
		if len(b) > maxStdin {
			return nil, nil, fmt.Errorf("standard input is larger than %d MiB: %w; give the file by its name", maxStdin>>20, pipeline.ErrInvalid)
		}
		in, err := dicom.Open(b)
		add("standard input", in, err)
	}
	files, err := dicomFiles(named)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range files {
		in, err := dicom.OpenFile(f)
		add(f, in, err)
	}
	for _, st := range studies {
		sortInstances(st)
	}
	return studies, invalid, nil
}

const maxStdin = 512 << 20

// sortInstances puts a study in the order of series number, instance number and UID.
func sortInstances(st *pipeline.Study) {
	number := func(in *pipeline.Instance, t pipeline.Tag) int { n, _ := in.Header.Int(t); return n }
	slices.SortFunc(st.Instances, func(a, b *pipeline.Instance) int {
		return cmp.Or(cmp.Compare(number(a, pipeline.TagSeriesNumber), number(b, pipeline.TagSeriesNumber)),
			cmp.Compare(a.SeriesInstanceUID, b.SeriesInstanceUID),
			cmp.Compare(number(a, pipeline.TagInstanceNumber), number(b, pipeline.TagInstanceNumber)),
			cmp.Compare(a.SOPInstanceUID, b.SOPInstanceUID))
	})
}
