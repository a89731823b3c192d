package archive

import (
	"context"
	"slices"

	"chatxray/pipeline"
)

// include adds the attributes that a query asks for and the index does not hold, from the file of the result's first instance. An
// attribute of a level below the query's is not added: its instances may have different ones.
func (a *Archive) include(ctx context.Context, q pipeline.Query, id int64, d *pipeline.Dataset) error {
	var missing [][]pipeline.Tag
	for _, path := range q.Include {
		if _, ok := d.Get(path[0]); !ok && !neverIncluded(path[0]) && levelOf(path[0]) <= q.Level {
			missing = append(missing, path)
		}
	}
	if !q.All && len(missing) == 0 {
		return nil
	}
	header, err := a.firstHeader(ctx, q.Level, id)
	if err != nil || header == nil {
		return err
	}
	if q.All {
		for _, e := range header {
			if _, ok := d.Get(e.Tag); !ok && !neverIncluded(e.Tag) && levelOf(e.Tag) <= q.Level && len(e.Bytes) == 0 {
				d.Set(withoutBytes(e))
			}
		}
		return nil
	}
	for _, path := range missing {
		if e, ok := at(header, path); ok {
			d.Set(e)
		}
	}
	return nil
}

// neverIncluded are the attributes that describe the file's writing and not the object.
func neverIncluded(t pipeline.Tag) bool {
	return t.Group() <= 0x0002 || t == pipeline.TagSpecificCharacterSet || t.Element() == 0
}

// at picks an attribute by its path; of the sequences above it only that attribute is kept.
func at(d pipeline.Dataset, path []pipeline.Tag) (pipeline.Element, bool) {
	e, ok := d.Get(path[0])
	if !ok || len(path) == 1 || e.VR != "SQ" {
		return withoutBytes(e), ok && len(path) == 1
	}
	out := pipeline.Element{Tag: e.Tag, VR: e.VR}
	for _, item := range e.Items {
		var kept pipeline.Dataset
		if inner, ok := at(item, path[1:]); ok {
			kept = pipeline.Dataset{inner}
		}
		out.Items = append(out.Items, kept)
	}
	return out, true
}

// withoutBytes drops binary values: WADO-RS has them.
func withoutBytes(e pipeline.Element) pipeline.Element {
	e.Bytes = nil
	if len(e.Items) == 0 {
		return e
	}
	items := make([]pipeline.Dataset, len(e.Items))
	for i, item := range e.Items {
		for _, inner := range item {
			if len(inner.Bytes) == 0 {
				items[i] = append(items[i], withoutBytes(inner))
			}
		}
	}
	e.Items = items
	return e
}

// firstHeader reads the file of the first instance of a row; nil where it cannot be read, which is told to Warn.
func (a *Archive) firstHeader(ctx context.Context, level pipeline.Level, id int64) (pipeline.Dataset, error) {
	first := [...]string{
		pipeline.StudyLevel:    "(SELECT min(x.id) FROM instance x JOIN series y ON y.id = x.series WHERE y.study = ?)",
		pipeline.SeriesLevel:   "(SELECT min(x.id) FROM instance x WHERE x.series = ?)",
		pipeline.InstanceLevel: "?",
	}[level]
	in, _, _, err := a.scanInstance(a.read.QueryRowContext(ctx, "SELECT "+instanceColumns+instanceTables+" WHERE i.id = "+first, id))
	if err != nil {
		return nil, noRow(err)
	}
	header, err := a.header(in.Path)
	if err != nil {
		a.opts.Warn("a search could not read attributes from a file of the archive", in.Path, err)
		return nil, nil
	}
	return header, nil
}

func (a *Archive) header(path string) (pipeline.Dataset, error) {
	in, err := a.look(path)
	if err != nil {
		return nil, err
	}
	return in.Header, nil
}

// levelOf is the level of the information model that an attribute belongs to: Patient, Patient Study, Clinical Trial and General Study
// modules to the study; General Series and General Equipment to the series (PS3.3 sections C.7.1 to C.7.3 and C.7.5).
func levelOf(t pipeline.Tag) pipeline.Level {
	switch {
	case slices.Contains(studyTags, t), (t.Group() == 0x0010 || t.Group() == 0x0038) && t != pipeline.TagAnatomicalOrientationType:
		return pipeline.StudyLevel
	case slices.Contains(seriesTags, t):
		return pipeline.SeriesLevel
	}
	return pipeline.InstanceLevel
}

var studyTags = []pipeline.Tag{
	pipeline.TagStudyDate, pipeline.TagStudyTime, pipeline.TagAccessionNumber, pipeline.TagIssuerOfAccessionNumberSequence,
	pipeline.TagModalitiesInStudy, pipeline.TagSOPClassesInStudy, pipeline.TagReferringPhysicianName, pipeline.TagTimezoneOffsetFromUTC,
	pipeline.TagStudyDescription, pipeline.TagProcedureCodeSequence, pipeline.TagReferencedStudySequence, pipeline.TagStudyInstanceUID,
	pipeline.TagStudyID, pipeline.TagNumberOfStudyRelatedSeries, pipeline.TagNumberOfStudyRelatedInstances,
	pipeline.TagPatientIdentityRemoved, pipeline.TagDeidentificationMethod,
	0x00080096,                                                                                                 // Referring Physician Identification Sequence
	0x0008009C,                                                                                                 // Consulting Physician's Name
	0x00081048,                                                                                                 // Physician(s) of Record
	0x00081049,                                                                                                 // Physician(s) of Record Identification Sequence
	0x00081060,                                                                                                 // Name of Physician(s) Reading Study
	0x00081062,                                                                                                 // Physician(s) Reading Study Identification Sequence
	0x00081080,                                                                                                 // Admitting Diagnoses Description
	0x00081084,                                                                                                 // Admitting Diagnoses Code Sequence
	0x00120010, 0x00120020, 0x00120021, 0x00120030, 0x00120031, 0x00120040, 0x00120042, 0x00120050, 0x00120051, // Clinical Trial Subject and Study
	0x00120064, // De-identification Method Code Sequence
	0x00321033, // Requesting Service
	0x00321034, // Requesting Service Code Sequence
	0x00401012, // Reason For Performed Procedure Code Sequence
	pipeline.TagRequestingPhysician,
}

var seriesTags = []pipeline.Tag{
	pipeline.TagModality, pipeline.TagSeriesDate, pipeline.TagSeriesTime, pipeline.TagSeriesDescription, pipeline.TagPerformingPhysicianName,
	pipeline.TagOperatorsName, pipeline.TagReferencedPerformedProcedureStepSequence, pipeline.TagAnatomicalOrientationType,
	pipeline.TagBodyPartExamined, pipeline.TagProtocolName, pipeline.TagPatientPosition, pipeline.TagSeriesInstanceUID,
	pipeline.TagSeriesNumber, pipeline.TagLaterality, pipeline.TagFrameOfReferenceUID, pipeline.TagNumberOfSeriesRelatedInstances,
	pipeline.TagPerformedProcedureStepStartDate, pipeline.TagPerformedProcedureStepStartTime, pipeline.TagPerformedProcedureStepID,
	pipeline.TagPerformedProcedureStepDescription, pipeline.TagPerformedProtocolCodeSequence, pipeline.TagRequestAttributesSequence,
	pipeline.TagManufacturer, pipeline.TagInstitutionName, pipeline.TagInstitutionCodeSequence, pipeline.TagStationName,
	pipeline.TagInstitutionalDepartmentName, pipeline.TagManufacturerModelName, pipeline.TagDeviceSerialNumber, pipeline.TagDeviceUID,
	pipeline.TagSoftwareVersions, pipeline.TagSpatialResolution, pipeline.TagDateOfLastCalibration, pipeline.TagPixelPaddingValue,
	0x00080081,                         // Institution Address
	0x0008103F,                         // Series Description Code Sequence
	0x00081052,                         // Performing Physician Identification Sequence
	0x00081072,                         // Operator Identification Sequence
	0x00081250,                         // Related Series Sequence
	0x00120060, 0x00120071, 0x00120072, // Clinical Trial Series
	0x00181008, // Gantry ID
	0x00181201, // Time of Last Calibration
	0x00201040, // Position Reference Indicator
	0x00400250, // Performed Procedure Step End Date
	0x00400251, // Performed Procedure Step End Time
	0x00400280, // Comments on the Performed Procedure Step
}
