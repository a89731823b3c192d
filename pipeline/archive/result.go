package archive

import (
	"slices"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// scanResult makes a result of a row: the attributes of its level and of those above, and what is counted (PS3.18 tables 10.6.3-3 to -5).
func scanResult(r row, level pipeline.Level) (id int64, d pipeline.Dataset, err error) {
	var attrs [3]string
	var modalities, classes, syntax string
	var series, ofStudy, ofSeries int64
	into := []any{&id, &attrs[0], &modalities, &classes, &series, &ofStudy}
	if level >= pipeline.SeriesLevel {
		into = append(into, &attrs[1], &ofSeries)
	}
	if level == pipeline.InstanceLevel {
		into = append(into, &attrs[2], &syntax)
	}
	if err := r.Scan(into...); err != nil {
		return 0, nil, err
	}
	d = make(pipeline.Dataset, 0, 32)
	for _, s := range attrs[:level+1] {
		if d, err = decode(d, s); err != nil {
			return 0, nil, err
		}
	}
	text := func(t pipeline.Tag, vr string, values ...string) {
		d = append(d, pipeline.Element{Tag: t, VR: vr, Text: values})
	}
	count := func(t pipeline.Tag, n int64) { text(t, "IS", strconv.FormatInt(n, 10)) }
	text(pipeline.TagInstanceAvailability, "CS", "ONLINE")
	text(pipeline.TagModalitiesInStudy, "CS", listOf(modalities)...)
	text(pipeline.TagSOPClassesInStudy, "UI", listOf(classes)...)
	count(pipeline.TagNumberOfStudyRelatedSeries, series)
	count(pipeline.TagNumberOfStudyRelatedInstances, ofStudy)
	if level >= pipeline.SeriesLevel {
		count(pipeline.TagNumberOfSeriesRelatedInstances, ofSeries)
	}
	if level == pipeline.InstanceLevel {
		text(pipeline.TagAvailableTransferSyntaxUID, "UI", syntax)
	}
	// The lowest level's value counts where two have an attribute.
	slices.SortStableFunc(d, func(a, b pipeline.Element) int { return int(int64(a.Tag) - int64(b.Tag)) })
	out := d[:0]
	for i, e := range d {
		if i+1 < len(d) && d[i+1].Tag == e.Tag {
			continue
		}
		out = append(out, e)
	}
	return id, out, nil
}

// listOf cuts a column of several values, sorted.
func listOf(s string) []string {
	if s == "" {
		return nil
	}
	out := strings.Split(s, `\`)
	slices.Sort(out)
	return out
}
