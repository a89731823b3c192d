package sr

import (
	"slices"

	"chatxray/pipeline"
)

// header writes everything of a document but its content tree (PS3.3 sections A.35.1 and A.35.13).
func (d *draft) header() pipeline.Dataset {
	r := d.Reading
	ds := make(pipeline.Dataset, 0, 64) // few documents have more attributes, those of the content's root included
	ds.SetText(pipeline.TagSpecificCharacterSet, "CS", "ISO_IR 192")
	d.patientAndStudy(&ds)

	// SR Document Series and SOP Common
	date, time := d.written.Format("20060102"), d.written.Format("150405")
	ds.SetText(pipeline.TagSOPClassUID, "UI", d.class)
	ds.SetText(pipeline.TagSOPInstanceUID, "UI", derive("instance", d.name))
	ds.SetText(pipeline.TagSeriesInstanceUID, "UI", derive("series", d.name))
	ds.SetText(pipeline.TagModality, "CS", "SR")
	ds.SetText(pipeline.TagSeriesNumber, "IS", d.seriesNumber)
	ds.SetText(pipeline.TagSeriesDescription, "LO", d.title(d.series))
	ds.SetItems(pipeline.TagReferencedPerformedProcedureStepSequence)
	ds.SetText(pipeline.TagInstanceNumber, "IS", "1")
	ds.SetText(pipeline.TagInstanceCreationDate, "DA", date)
	ds.SetText(pipeline.TagInstanceCreationTime, "TM", time)
	ds.SetText(pipeline.TagTimezoneOffsetFromUTC, "SH", d.written.Format("-0700"))

	// Enhanced General Equipment: this software; Contributing Equipment: the algorithm
	ds.SetText(pipeline.TagManufacturer, "LO", Manufacturer)
	ds.SetText(pipeline.TagManufacturerModelName, "LO", Product)
	ds.SetText(pipeline.TagDeviceSerialNumber, "LO", r.Model.Digest.String()[:16])
	ds.SetText(pipeline.TagSoftwareVersions, "LO", d.Software)
	ds.SetText(pipeline.TagStationName, "SH", d.Station)
	ds.SetItems(pipeline.TagContributingEquipmentSequence, d.equipment())

	// SR Document General
	ds.SetText(pipeline.TagContentDate, "DA", date)
	ds.SetText(pipeline.TagContentTime, "TM", time)
	ds.SetText(pipeline.TagCompletionFlag, "CS", "PARTIAL")
	ds.SetText(pipeline.TagCompletionFlagDescription, "LO", d.title(draftNotice))
	ds.SetText(pipeline.TagVerificationFlag, "CS", "UNVERIFIED")
	ds.SetText(pipeline.TagPreliminaryFlag, "CS", "PRELIMINARY")
	ds.SetItems(pipeline.TagAuthorObserverSequence, d.author())
	ds.SetItems(pipeline.TagReferencedRequestSequence, d.requests()...)
	ds.SetItems(pipeline.TagPerformedProcedureCodeSequence, codeItems(d.procedureCodes())...)
	ds.SetItems(pipeline.TagCurrentRequestedProcedureEvidenceSequence, d.evidence())
	if old := d.predecessors(); len(old) > 0 {
		ds.SetItems(pipeline.TagPredecessorDocumentsSequence, studyReference(r.StudyInstanceUID, old))
	}
	return ds
}

// title marks a short text as about a phantom.
func (d *draft) title(s string) string {
	if d.Reading.Phantom {
		return phantomTitle + s
	}
	return s
}

// equipment is the algorithm's item of the Contributing Equipment Sequence (PS3.3 section C.12.1.1.5), which IHE AI Results demands.
func (d *draft) equipment() pipeline.Dataset {
	e := make(pipeline.Dataset, 0, 7)
	e.SetItems(pipeline.TagPurposeOfReferenceCodeSequence, codeItem(processingEquipment))
	e.SetText(pipeline.TagManufacturer, "LO", Manufacturer)
	e.SetText(pipeline.TagManufacturerModelName, "LO", d.Reading.Model.Name)
	e.SetText(pipeline.TagSoftwareVersions, "LO", modelVersion(d.Reading.Model))
	e.SetText(pipeline.TagDeviceUID, "UI", d.device)
	e.SetText(pipeline.TagContributionDateTime, "DT", d.written.Format("20060102150405-0700"))
	e.SetText(pipeline.TagContributionDescription, "ST", "Sentences and coded findings")
	return e
}

// author is the item of the Author Observer Sequence (PS3.3 table C.17-3b): a device, never a person.
func (d *draft) author() pipeline.Dataset {
	a := make(pipeline.Dataset, 0, 7)
	a.SetText(pipeline.TagObserverType, "CS", "DEV")
	a.SetText(pipeline.TagStationName, "SH", d.Station)
	a.SetText(pipeline.TagDeviceUID, "UI", d.device)
	a.SetText(pipeline.TagManufacturer, "LO", Manufacturer)
	a.SetText(pipeline.TagManufacturerModelName, "LO", d.Reading.Model.Name)
	a.SetText(pipeline.TagInstitutionName, "LO")
	a.SetItems(pipeline.TagInstitutionCodeSequence)
	return a
}

// evidence names every image of the reading by study, series and instance (PS3.3 table C.17-3).
func (d *draft) evidence() pipeline.Dataset {
	var refs []pipeline.DocumentRef
	for _, in := range d.images {
		refs = append(refs, pipeline.DocumentRef{
			SeriesInstanceUID: in.SeriesInstanceUID, SOPInstanceUID: in.SOPInstanceUID, SOPClassUID: in.SOPClassUID})
	}
	return studyReference(d.Reading.StudyInstanceUID, refs)
}

func (d *draft) predecessors() []pipeline.DocumentRef {
	var refs []pipeline.DocumentRef
	for _, p := range d.Predecessors {
		if p.Kind == d.kind {
			refs = append(refs, p)
		}
	}
	return refs
}

// studyReference is an item of the Hierarchical SOP Instance Reference Macro (PS3.3 table C.17-3): each series and each instance once.
func studyReference(study string, refs []pipeline.DocumentRef) pipeline.Dataset {
	var order []string
	series := map[string][]pipeline.Dataset{}
	var seen []string
	for _, ref := range refs {
		if slices.Contains(seen, ref.SOPInstanceUID) {
			continue
		}
		seen = append(seen, ref.SOPInstanceUID)
		if series[ref.SeriesInstanceUID] == nil {
			order = append(order, ref.SeriesInstanceUID)
		}
		var item pipeline.Dataset
		item.SetText(pipeline.TagReferencedSOPClassUID, "UI", ref.SOPClassUID)
		item.SetText(pipeline.TagReferencedSOPInstanceUID, "UI", ref.SOPInstanceUID)
		series[ref.SeriesInstanceUID] = append(series[ref.SeriesInstanceUID], item)
	}
	var items []pipeline.Dataset
	for _, uid := range order {
		var item pipeline.Dataset
		item.SetText(pipeline.TagSeriesInstanceUID, "UI", uid)
		item.SetItems(pipeline.TagReferencedSOPSequence, series[uid]...)
		items = append(items, item)
	}
	var out pipeline.Dataset
	out.SetText(pipeline.TagStudyInstanceUID, "UI", study)
	out.SetItems(pipeline.TagReferencedSeriesSequence, items...)
	return out
}
