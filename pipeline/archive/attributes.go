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
	var out pipeline.Dataset
	for _, tags := range [][]pipeline.Tag{studyAttributes, seriesAttributes, instanceAttributes} {
		out = append(out, pick(in.Header, tags)...)
	}
	var sorted pipeline.Dataset
	for _, e := range out {
		sorted.Set(e)
	}
	sorted.SetText(pipeline.TagStudyInstanceUID, "UI", in.StudyInstanceUID)
	sorted.SetText(pipeline.TagSeriesInstanceUID, "UI", in.SeriesInstanceUID)
	sorted.SetText(pipeline.TagSOPInstanceUID, "UI", in.SOPInstanceUID)
	sorted.SetText(pipeline.TagSOPClassUID, "UI", in.SOPClassUID)
	return sorted
}

func pick(d pipeline.Dataset, tags []pipeline.Tag) pipeline.Dataset {
	var out pipeline.Dataset
	for _, t := range tags {
		e, ok := d.Get(t)
		if vr := required[t]; !ok && vr != "" {
			e, ok = pipeline.Element{Tag: t, VR: vr}, true
		}
		if ok && len(encode(pipeline.Dataset{e})) <= maxKept {
			out.Set(e)
		}
	}
	return out
}
