package archive

import "chatxray/pipeline"

// The attributes that the index keeps of each level, which are those that a query returns (PS3.18 tables 10.6.3-3 to -5).
var (
	studyAttributes = []pipeline.Tag{
		pipeline.TagStudyDate, pipeline.TagStudyTime, pipeline.TagAccessionNumber, pipeline.TagIssuerOfAccessionNumberSequence,
		pipeline.TagReferringPhysicianName,
		pipeline.TagTimezoneOffsetFromUTC, pipeline.TagStudyDescription, pipeline.TagPatientName, pipeline.TagPatientID,
		pipeline.TagIssuerOfPatientID, pipeline.TagPatientBirthDate, pipeline.TagPatientSex, pipeline.TagStudyInstanceUID,
		pipeline.TagStudyID,
	}
	seriesAttributes = []pipeline.Tag{
		pipeline.TagSeriesDate, pipeline.TagSeriesTime, pipeline.TagModality, pipeline.TagSeriesDescription,
		pipeline.TagBodyPartExamined, pipeline.TagSeriesInstanceUID, pipeline.TagSeriesNumber, pipeline.TagLaterality,
		pipeline.TagPerformedProcedureStepStartDate, pipeline.TagPerformedProcedureStepStartTime,
		pipeline.TagRequestAttributesSequence,
	}
	instanceAttributes = []pipeline.Tag{
		pipeline.TagSOPClassUID, pipeline.TagSOPInstanceUID, pipeline.TagContentDate, pipeline.TagContentTime,
		pipeline.TagInstanceNumber, pipeline.TagNumberOfFrames, pipeline.TagRows, pipeline.TagColumns, pipeline.TagBitsAllocated,
		pipeline.TagViewPosition,
	}
	// required come back empty when the instance lacks them.
	required = map[pipeline.Tag]string{
		pipeline.TagStudyDate: "DA", pipeline.TagStudyTime: "TM", pipeline.TagAccessionNumber: "SH",
		pipeline.TagReferringPhysicianName: "PN", pipeline.TagPatientName: "PN", pipeline.TagPatientID: "LO",
		pipeline.TagPatientBirthDate: "DA", pipeline.TagPatientSex: "CS", pipeline.TagStudyID: "SH",
		pipeline.TagModality: "CS", pipeline.TagSeriesNumber: "IS", pipeline.TagInstanceNumber: "IS",
	}
)

// maxKept bounds the JSON text of one attribute in the index; a longer one is left out.
const maxKept = 16 << 10

// indexed picks the attributes that the index keeps, with the UIDs as the instance has them.
func indexed(in *pipeline.Instance) pipeline.Dataset {
	out := make(pipeline.Dataset, 0, len(studyAttributes)+len(seriesAttributes)+len(instanceAttributes))
	for _, tags := range [][]pipeline.Tag{studyAttributes, seriesAttributes, instanceAttributes} {
		for _, e := range pick(in.Header, tags) {
			out.Set(e)
		}
	}
	out.SetText(pipeline.TagStudyInstanceUID, "UI", in.StudyInstanceUID)
	out.SetText(pipeline.TagSeriesInstanceUID, "UI", in.SeriesInstanceUID)
	out.SetText(pipeline.TagSOPInstanceUID, "UI", in.SOPInstanceUID)
	out.SetText(pipeline.TagSOPClassUID, "UI", in.SOPClassUID)
	return out
}

func pick(d pipeline.Dataset, tags []pipeline.Tag) pipeline.Dataset {
	out := make(pipeline.Dataset, 0, len(tags))
	for _, t := range tags {
		e, ok := d.Get(t)
		if vr := required[t]; !ok && vr != "" {
			e, ok = pipeline.Element{Tag: t, VR: vr}, true
		}
		if ok && (mostJSON(e) <= maxKept || len(encode(pipeline.Dataset{e})) <= maxKept) {
			out.Set(e)
		}
	}
	return out
}

// mostJSON is more than the JSON text of an attribute can be long; seldom is that itself worth finding out.
func mostJSON(e pipeline.Element) int {
	n := 64 + 24*len(e.Ints) + 32*len(e.Floats)
	for _, s := range e.Text {
		n += 8 + 6*len(s) // a character may become \u0000
	}
	for _, item := range e.Items {
		n += 8
		for _, e := range item {
			n += mostJSON(e)
		}
	}
	return n
}
